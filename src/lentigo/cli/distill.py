"""`lentigo distill`: starting weights of one's own, from teachers and images without labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lentigo.cli import console
from lentigo.cli.options import Accelerator, JsonFlag, parse_minutes
from lentigo.core.errors import ConfigError, ExitCode

LEARNING = "Learning"


def distill(
    student: Annotated[str | None, typer.Option(help="Architecture that learns. Default mobilenet_v3_large.")] = None,
    teachers: Annotated[
        list[str] | None,
        typer.Option("--teacher", metavar="ARCHITECTURE=FILE", help="Network to learn from; repeatable."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="CSV, folder, .npz or Parquet pack with splits; train and extra alone are used; repeatable."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Image folder of a CSV that has none beside it.")] = None,
    photos: Annotated[list[Path] | None, typer.Option(help="Folder of any other images; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("start"),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the images. Default 60.", rich_help_panel=LEARNING)
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Input side in pixels. Default 128.", rich_help_panel=LEARNING)
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(metavar="PX,PX", help="Sides that share the epochs, such as 128,160.", rich_help_panel=LEARNING),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="Images a step. Default 64.", rich_help_panel=LEARNING)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of AdamW's rate. Default 0.002.", rich_help_panel=LEARNING)
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(min=0, help="Beta(a, a) mixing of images. Default 0: off.", rich_help_panel=LEARNING),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random. Default 0.")] = None,
    licence_note: Annotated[
        str | None, typer.Option(help="Licences of teachers and images, kept in the file's metadata.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the distillation in --out.")] = False,
    time_limit: Annotated[str | None, typer.Option(help="Save and stop after 90s, 30m, 1h30m.")] = None,
    accelerator: Annotated[Accelerator, typer.Option(help="Where to train.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Teach a network what others see in images without labels; the result is a start for `lentigo train`.

    `lentigo distill --teacher mobilenet_v2=mobilenet_v2.safetensors --data split.csv --out start-v3`

    `lentigo distill --teacher mobilenet_v2=v2.pth --teacher timm:tf_efficientnet_lite0=lite0.pth --photos pictures`

    `lentigo distill --resume --out start-v3 --time-limit 30m`
    """
    console.require_training()
    from lentigo.training.distill import distill as start_distillation
    from lentigo.training.distill import resume_distill
    from lentigo.training.distill_settings import StartDir

    given: dict[str, Any] = {
        "student": student,
        "teachers": teachers,
        "catalogs": data,
        "images": images,
        "photographs": photos,
        "epochs": epochs,
        "sizes_px": _sizes(size, sizes),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "mixup_alpha": mixup,
        "seed": seed,
        "licence_note": licence_note,
    }
    given = {name: value for name, value in given.items() if value is not None}
    how: dict[str, Any] = {
        "accelerator": accelerator,
        "time_limit_min": parse_minutes(time_limit) if time_limit is not None else 0.0,
    }
    if resume and given:
        raise ConfigError(
            "--resume continues a distillation exactly as it was; it takes --out, --time-limit and --accelerator alone",
            "Drop the other options, or start a new one.",
        )
    if not resume:
        StartDir.check_free(out)
        settings = _settings(given)
    with console.training_listener() as listen:
        outcome = (
            resume_distill(out, listen=listen, **how)
            if resume
            else start_distillation(settings, out, listen=listen, **how)
        )
    if as_json:
        facts = {name: value for name, value in asdict(outcome).items() if name != "folder"}
        console.print_json({"start": str(outcome.folder.start), **facts})
    loss = (
        ""
        if outcome.held_out_loss is None
        else (f", held out loss {outcome.held_out_loss:.4f}, explained {outcome.held_out_explained:.3f}")
    )
    console.say(f"{outcome.ended or 'stopped'} after {outcome.epochs} epochs{loss}, {outcome.elapsed_s:.0f} s")
    if outcome.ended != "done":
        console.say(f"saved. Continue: lentigo distill --resume --out {out}")
    if not outcome.ended:
        raise typer.Exit(ExitCode.INTERRUPTED)
    name = outcome.folder.read_settings().student
    console.say(
        f"start: {outcome.folder.start}    next: lentigo train DATA --weights {outcome.folder.start} "
        f"--set model.architecture={name}"
    )


def _sizes(size: int | None, sizes: str | None) -> list[int] | None:
    if size is not None and sizes is not None:
        raise ConfigError("expected --size or --sizes; found both", "Pass one of them.")
    if sizes is None:
        return None if size is None else [size]
    try:
        return [int(part) for part in sizes.split(",")]
    except ValueError:
        raise ConfigError(f"--sizes takes whole numbers of pixels; found {sizes!r}", "For example 128,160") from None


def _settings(given: dict[str, Any]) -> Any:
    """Settings from the options that were given; the others take their defaults there."""
    from lentigo.models.network import find_architecture
    from lentigo.training.distill_settings import build_settings
    from lentigo.training.feature_teachers import describe_teacher

    values = {"student": "mobilenet_v3_large", **given}
    find_architecture(values["student"])
    if not values.get("teachers"):
        raise ConfigError("expected a teacher; found none", "Pass --teacher ARCHITECTURE=FILE.")
    if not values.get("catalogs") and not values.get("photographs"):
        raise ConfigError("expected images to learn from; found none", "Pass --data, --photos or both.")
    teachers = []
    for text in values["teachers"]:
        architecture, separator, file = text.partition("=")
        if not separator or not architecture or not file:
            raise ConfigError(
                f"--teacher takes ARCHITECTURE=FILE; found {text!r}", "For example --teacher mobilenet_v2=v2.pth"
            )
        teachers.append(describe_teacher(architecture, Path(file)))
    values["teachers"] = teachers
    for name in ("catalogs", "photographs"):
        values[name] = [str(path.resolve()) for path in values.get(name, ())]
    if "images" in values:
        values["images"] = str(values["images"].resolve())
    return build_settings(**values)
