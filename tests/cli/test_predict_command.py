"""`lentigo predict` as it is meant to be used: images in, table or file out, with the runtime tier alone."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from lentigo.cli import console
from lentigo.core.taxonomy import CLASS_CODES, ISIC_2018_COLUMNS
from lentigo.data.preprocess import Preprocess
from lentigo.deploy import engine
from lentigo.deploy.classifier import Classifier

from ..deploy.conftest import TINY_SIZE_PX, write_tiny_model

Command = Callable[..., Any]
COUNT = 20
NOT_IN_THE_RUNTIME = ("torch", "torchvision", "pandas", "sklearn", "scipy", "matplotlib", "pyarrow", "safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a tiny export."""
    run = tmp_path_factory.mktemp("run")
    write_tiny_model(run / "export", Preprocess(resize_steps_px=(48, TINY_SIZE_PX)))
    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """images/ with 20 pictures, in the working folder."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        pixels = generator.integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02d}.png")
    return tmp_path / "images"


@pytest.fixture
def predict(lentigo: Command, model: Path, images: Path) -> Command:
    """`lentigo predict ARGUMENTS --model MODEL`."""
    return lambda *arguments: lentigo("predict", *arguments, "--model", model)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_image_as_a_table(predict: Command, model: Path) -> None:
    said = predict("images/03.png")
    assert said.code == 0
    (answer,) = Classifier.load(model).predict("images/03.png")
    assert all(code.upper() in said.out for code in CLASS_CODES)
    assert f"{answer.confidence:.3f}" in said.out
    assert f"malignant risk {answer.malignant_risk:.3f}" in said.out
    assert "trained on drawings" in said.err
    assert "not a diagnosis" in said.err


@pytest.mark.parametrize("name", ["a[/b].png", "tree/sub/[br].png", "[bold]a[red].png", ":warning:.png"])
def test_names_are_no_markup(predict: Command, images: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes((images / "03.png").read_bytes())
    for given in ((name,), (name, "images/04.png")):
        said = predict(*given)
        assert said.code == 0, said.err
        assert name in said.out


def test_headers_and_titles_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """As names of compared systems and of exports are."""
    console.print_table(("metric", "[b]", "a[/b]"), [("[i]", 1, 2)], title="[red]x against a[/b]")
    title, headers, _, row = (line.strip() for line in capsys.readouterr().out.splitlines() if line.strip())
    assert title == "[red]x against a[/b]"
    assert headers.split() == ["metric", "[b]", "a[/b]"]
    assert row.split() == ["[i]", "1", "2"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("options", [("--format", "csv"), ("--json",)])
def test_a_full_disk_is_told(model: Path, images: Path, options: tuple[str, ...]) -> None:
    code = "from lentigo.cli.app import main; main()"
    command = [sys.executable, "-c", code, "predict", "images/03.png", "--model", str(model), *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "error: cannot read or write the output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_few_images_as_a_table(predict: Command) -> None:
    said = predict("images")
    assert said.code == 0
    assert all(f"images/{number:02d}.png" in said.out for number in range(COUNT))


def test_many_images_as_a_summary(predict: Command, images: Path) -> None:
    for number in range(COUNT, 60):
        (images / f"{number}.png").write_bytes((images / f"{number % COUNT:02d}.png").read_bytes())
    (images / "99.png").write_bytes(b"no image")
    said = predict("images")
    assert said.code == 0
    assert "61 images, 1 of them not readable" in said.out
    assert "images/09.png" in said.out
    assert "images/10.png" not in said.out
    assert "--out predictions.csv" in said.out
    assert "1 of 61 images could not be read" in said.err


def test_json_is_all_that_stdout_holds(predict: Command, model: Path) -> None:
    said = predict("images", "--json", "--views", 4)
    expected = Classifier.load(model, views=4).predict([f"images/{number:02d}.png" for number in range(COUNT)])
    assert [row["probs"] for row in said.json["predictions"]] == [one.probs for one in expected]
    assert (said.json["images"], said.json["failed"], said.json["views"]) == (COUNT, 0, 4)


@pytest.mark.parametrize(("name", "start"), [("a.csv", b"name,label"), ("a.json", b"{"), ("a.jsonl", b'{"name"'),
                                             ("a.parquet", b"PAR1"), ("a.html", b"<!doctype")])  # fmt: skip
def test_the_ending_tells_the_format(predict: Command, tmp_path: Path, name: str, start: bytes) -> None:
    said = predict("images", "--out", name)
    assert (said.code, said.out) == (0, "")
    assert (tmp_path / name).read_bytes().startswith(start)
    assert said.err.splitlines()[-1] == f"predictions: {name}"


def test_csv_on_stdout_is_that_of_the_file(predict: Command, tmp_path: Path) -> None:
    predict("images", "--out", "a.csv", "--batch-size", 3, "--threads", 2)
    said = predict("images", "--format", "csv", "--batch-size", 7, "--threads", 1)
    assert said.out == (tmp_path / "a.csv").read_text()


def test_isic_goes_to_the_scorer(predict: Command, lentigo: Command, tmp_path: Path) -> None:
    assert predict("images", "--format", "isic", "--out", "isic.csv").code == 0
    with (tmp_path / "truth.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", *ISIC_2018_COLUMNS))
        writer.writerows((f"{n:02d}", *(float(n % 7 == c) for c in range(7))) for n in range(COUNT))
    assert lentigo("score", "isic.csv", "truth.csv", "--resamples", 100).code == 0


def test_isic_refuses_doubled_ids_before_the_work(predict: Command, images: Path, tmp_path: Path) -> None:
    (images / "below").mkdir()
    (images / "below" / "03.jpg").write_bytes((images / "03.png").read_bytes())
    said = predict("images", "--format", "isic", "--out", "isic.csv")
    assert said.code == 3
    assert "several images: 03" in said.err
    assert not (tmp_path / "isic.csv").exists()


def test_a_bad_image_is_a_row_and_the_rest_goes_on(predict: Command, images: Path, tmp_path: Path) -> None:
    (images / "05.png").write_bytes(b"no image")
    (images / "06.png").write_bytes((images / "06.png").read_bytes()[:200])
    said = predict("images", "--out", "a.csv")
    assert said.code == 0
    assert "2 of 20 images could not be read" in said.err
    assert "images/05.png is not an image" in said.err
    rows = rows_of(tmp_path / "a.csv")
    assert [row["name"] for row in rows if row["error"]] == ["images/05.png", "images/06.png"]
    assert len(rows) == COUNT


def test_strict_stops_at_the_first_bad_image(predict: Command, images: Path, tmp_path: Path) -> None:
    for number in (5, 6):
        (images / f"{number:02d}.png").write_bytes(b"no image")
    said = predict("images", "--out", "a.csv", "--strict")
    assert said.code == 3
    assert "images/05.png" in said.err
    assert "06.png" not in said.err
    assert len(rows_of(tmp_path / "a.csv")) == 5
    said = predict("images", "--json", "--strict")
    assert said.code == said.json["exit_code"] == 3


@pytest.mark.parametrize("options", [(), ("--json",), ("--out", "a.csv")])
def test_all_failed_exits_3(predict: Command, images: Path, options: tuple[str, ...]) -> None:
    for path in images.iterdir():
        path.write_bytes(b"no image")
    said = predict("images", *options)
    assert said.code == 3
    assert "20 of 20 images could not be read" in said.err
    assert "and 15 more" in said.err
    if options == ("--json",):
        assert said.json["failed"] == COUNT


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_killed_run_goes_on_to_the_same_bytes(predict: Command, tmp_path: Path, name: str) -> None:
    assert predict("images", "--out", f"whole-{name}").code == 0
    whole = (tmp_path / f"whole-{name}").read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    said = predict("images", "--out", name, "--resume", "--batch-size", 5)
    assert said.code == 0
    assert "of 20 images are in" in said.err
    assert (tmp_path / name).read_bytes() == whole
    again = predict("images", "--out", name, "--resume")
    assert (again.code, (tmp_path / name).read_bytes()) == (0, whole)


def test_a_resumed_run_ends_as_the_whole_one(predict: Command, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(next((tmp_path / "images").iterdir()), tmp_path / "one")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "z.jpg").write_bytes(b"no image")
    assert predict("one", "bad", "--out", "a.csv").code == 0
    whole = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
    (tmp_path / "a.csv").write_text("".join(whole[:-1]))
    assert predict("one", "bad", "--out", "a.csv", "--resume").code == 0
    assert predict("bad", "--out", "b.csv").code == 3
    assert predict("bad", "--out", "b.csv", "--resume").code == 3


def test_overlays_of_another_run_are_not_joined(predict: Command, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "00001-a-akiec.jpg").write_text("mine")
    said = predict("images", "--out", "a.csv", "--explain", "drawn", "--resume")
    assert said.code == 2
    assert "new or empty folder" in said.err


def test_a_name_that_the_stream_cannot_hold_is_escaped(tmp_path: Path) -> None:
    code = "from lentigo.cli.app import main; import sys; sys.argv = ['lentigo', 'predict', '\u4e2d.jpg']; main()"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 3
    assert b"\\u4e2d.jpg" in done.stderr
    assert b"bug" not in done.stderr


def test_ctrl_c_keeps_what_is_written(predict: Command, tmp_path: Path) -> None:
    real = engine.answer_batch
    begun = 0

    def interrupted(*arguments: Any, **options: Any) -> list[engine.Outcome]:
        nonlocal begun
        begun += 1
        if begun == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with mock.patch.object(engine, "answer_batch", interrupted):
        said = predict("images", "--out", "a.csv", "--batch-size", 3, "--threads", 1)
    assert said.code == 130
    assert "go on with --resume" in said.err
    assert len(rows_of(tmp_path / "a.csv")) == 9
    predict("images", "--out", "whole.csv")
    assert predict("images", "--out", "a.csv", "--resume").code == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_another_model_is_not_continued(predict: Command, tmp_path: Path) -> None:
    predict("images", "--out", "a.csv")
    before = (tmp_path / "a.csv").read_bytes()
    said = predict("images", "--out", "a.csv", "--resume", "--variant", "int8")
    assert said.code == 3
    assert "variant fp32" in said.err
    assert (tmp_path / "a.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.html", "a.parquet"])
def test_nothing_is_overwritten(predict: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    said = predict("images", "--out", name)
    assert said.code == 3
    assert "exists already" in said.err
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere.png",), 3, "no file, folder or match at nowhere.png"),
        (("https://example.org/a.jpg",), 2, "web addresses"),
        (("images", "--json", "--format", "csv"), 2, "--json and --format csv"),
        (("images", "--out", "a.txt"), 2, "does not tell the format"),
        (("images", "--out", "a.csv", "--format", "table"), 2, "printed, not written"),
        (("images", "--format", "html"), 2, "needs a file"),
        (("images", "--resume"), 2, "--resume continues"),
        (("images", "--resume", "--out", "a.json"), 2, "--resume continues"),
        (("images", "--views", "3"), 2, "1, 2, 4 or 8 views"),
        (("images", "--threads", "0"), 2, "--threads"),
        (("images", "--explain", "images"), 2, "new or empty folder"),
    ],
)
def test_what_cannot_be_done(
    predict: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = predict(*arguments)
    assert said.code == code, said
    assert message in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_no_model(lentigo: Command, images: Path) -> None:
    said = lentigo("predict", "images", "--model", "nowhere")
    assert said.code == 3
    assert "no model at nowhere" in said.err


def test_quality_can_be_left_out(predict: Command, tmp_path: Path) -> None:
    predict("images", "--out", "a.csv")
    predict("images", "--out", "b.csv", "--no-quality")
    checked, unchecked = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert all("size_px" in row["quality_flags"] and row["quality_checked"] == "yes" for row in checked)
    assert all(row["quality_flags"] == "" and row["quality_checked"] == "no" for row in unchecked)
    assert [row["p_mel"] for row in checked] == [row["p_mel"] for row in unchecked]


def test_overlays_are_drawn_beside_the_answers(predict: Command, images: Path, tmp_path: Path) -> None:
    (images / "05.png").write_bytes(b"no image")
    said = predict("images", "--out", "a.jsonl", "--explain", "maps")
    assert said.code == 0
    assert said.err.splitlines()[-1] == "predictions: a.jsonl    overlays: maps"
    labels = {row["name"]: row.get("label") for row in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())}
    expected = [f"{n + 1:05d}-{n:02d}-{labels[f'images/{n:02d}.png']}.jpg" for n in range(COUNT) if n != 5]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == expected
    with Image.open(tmp_path / "maps" / expected[0]) as overlay:
        assert overlay.size == (TINY_SIZE_PX, TINY_SIZE_PX)
    assert predict("images", "--explain", "maps").code == 2


def test_a_model_without_maps_says_so_before_the_work(lentigo: Command, images: Path, tmp_path: Path) -> None:
    preprocess = Preprocess(resize_steps_px=(TINY_SIZE_PX,))
    write_tiny_model(tmp_path / "bare", preprocess, head_weight=(), head_bias=())
    said = lentigo("predict", "images", "--model", "bare", "--explain", "maps", "--out", "a.csv")
    assert said.code == 2
    assert "lentigo explain" in said.err
    assert not (tmp_path / "a.csv").exists()


def test_archives_and_patterns(predict: Command, images: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for number in range(3):
            archive.write(images / f"{number:02d}.png", f"set/{number:02d}.png")
    assert predict("some.zip", "images/1*.png", "--out", "a.csv").code == 0
    predict("images", "--out", "b.csv")
    rows, direct = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert [row["name"] for row in rows[:4]] == [f"some.zip#set/0{n}.png" for n in range(3)] + ["images/10.png"]
    assert [row["p_mel"] for row in rows] == [row["p_mel"] for row in (*direct[:3], *direct[10:])]


def test_ray_that_is_missing(predict: Command) -> None:
    with mock.patch.dict(sys.modules, {"ray": None}):
        said = predict("images", "--engine", "ray")
    assert said.code == 2
    assert "lentigo[ray]" in said.err


def test_ray_rows_are_those_of_its_stream(predict: Command) -> None:
    """The wiring, with the local engine in ray's place; `test_ray_engine` has the real one."""

    def stand_in(folder: Path, items: Any, *, workers: int, **options: Any) -> Iterator[engine.Outcome]:
        keep = {name: options.pop(name) for name in ("batch_size", "keep_pixels")}
        return engine.predict_stream(Classifier.load(folder, threads=1, **options), items, workers=workers, **keep)

    local = predict("images", "--format", "csv")
    with mock.patch("lentigo.deploy.ray_engine.predict_with_ray", stand_in):
        assert predict("images", "--format", "csv", "--engine", "ray").out == local.out


def test_the_runtime_tier_is_enough(model: Path, images: Path) -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_IN_THE_RUNTIME!r}))\n"
        "from lentigo.cli.app import main\n"
        f"sys.argv = ['lentigo', 'predict', 'images', '--model', {str(model)!r}, '--json', '--explain', 'maps']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == COUNT
