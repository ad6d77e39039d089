"""What a training starts from, and what it records about its sessions."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from lightning_fabric import Fabric

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.recipes import load_recipe
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess
from lentigo.training.events import Event, describe
from lentigo.training.rows import training_rows
from lentigo.training.setup import check_batch, describe_rows, open_both
from lentigo.training.stopping import stop_requests


def test_train_and_val_share_one_cache_limit(
    tiny: ModuleType, tiny_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = tiny_catalog.split("train"), tiny_catalog.split("val")
    size_px = 512
    images_that_fit = 2**20 * 4 // (3 * size_px**2)
    config = tiny.make_config(data={"cache_limit_mb": 4})
    preprocess = Preprocess(resize_steps_px=(size_px,))
    both = open_both(train, val, preprocess, config, lambda event: None)
    assert sum(len(images.cached) for images in both) == images_that_fit
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    both = open_both(train, val, preprocess, config, lambda event: None)
    assert sum(len(images.cached) for images in both) == images_that_fit // 2


@pytest.mark.parametrize("small_epochs", [0, 1])
def test_the_smallest_size_that_is_trained_decides_whether_one_image_is_a_batch(
    tiny: ModuleType, small_epochs: int
) -> None:
    training = {"batch_size": 1, "small_epochs": small_epochs, "small_size_px": 32}
    config = tiny.make_config(training=training, preprocess={"resize_steps_px": [64]})
    fabric = Fabric(accelerator="cpu", devices=1)
    if not small_epochs:
        check_batch(config, fabric)
        return
    with pytest.raises(ConfigError, match="one image of 32 px a process") as error:
        check_batch(config, fabric)
    assert "training.small_size_px" in error.value.remedy


def test_rows_left_out_are_told(tiny: ModuleType, synthetic_catalog: Catalog) -> None:
    config = tiny.make_config()
    rows = synthetic_catalog.split("train")
    primary = rows.filter(lambda row: row.primary)
    text = describe_rows(synthetic_catalog, primary, synthetic_catalog.split("val"), config)
    assert f"training on {len(primary)} images" in text
    assert f"{len(rows) - len(primary)} left out as not primary" in text
    assert "drawn images" in text


def test_why_there_are_no_rows_is_told(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    repeats = replace(tiny_catalog, rows=tuple(replace(row, primary=False) for row in tiny_catalog))
    train = tiny_catalog.split("train")
    for catalog, settings, words in [
        (tiny_catalog.split("val"), {}, "none of the 9 images is in train"),
        (repeats, {}, "of the 26 images in train 0 are excluded by name (data.exclude_images), and the others are not"),
        (tiny_catalog, {"exclude_images": [row.image_id for row in train]}, "26 images in train 26 are excluded"),
    ]:
        with pytest.raises(DataError, match=f"no training rows.*{re.escape(words)}"):
            training_rows(catalog, tiny.make_config(data=settings))
    unjudged = Catalog((*train, *repeats.split("val")))
    for catalog, words in [(train, "0 of the 26 images are in val"), (unjudged, "9 of the 35 images are in val, none")]:
        with pytest.raises(DataError, match=f"no validation rows.*{words}"):
            tiny.start(tiny.make_config(), catalog, tmp_path, "run")


def test_weights_that_saw_other_rows_are_taken_with_caution(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    first, _ = tiny.start(tiny.make_config(), tiny_catalog, tmp_path, "first")
    config = tiny.make_config(model={"weights": str(first.best)})
    said: dict[str, list[Event]] = {"same": [], "other": []}
    tiny.start(config, tiny_catalog, tmp_path, "same", said["same"].append)
    other = tiny_catalog.filter(lambda row: row.image_id != tiny_catalog.rows[0].image_id)
    tiny.start(config, other, tmp_path, "other", said["other"].append)
    cautions = {name: [t for e in events if "caution" in (t := describe(e) or "")] for name, events in said.items()}
    assert cautions["same"] == []
    assert len(cautions["other"]) == 1


def test_every_session_is_recorded(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    config = tiny.make_config(training={"epochs": 3})

    def stop_after_first(event: Event) -> None:
        if type(event).__name__ == "EpochDone":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.start(config, tiny_catalog, tmp_path, "run", stop_after_first)
    run = tiny.RunDir(tmp_path / "run")
    status = run.read_status()
    assert status["state"] == "interrupted"
    assert {"best_epoch", "best_score", "elapsed_s", "start", "synthetic"} <= status.keys()
    first = json.loads(run.environment.read_text(encoding="utf-8"))
    tiny.resume(run)
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    assert len(environment["sessions"]) == 2
    assert environment["sessions"][0] == first["sessions"][0]
    assert {key: environment[key] for key in first if key != "sessions"} == {
        key: first[key] for key in first if key != "sessions"
    }


def test_a_changed_recipe_says_so() -> None:
    assert load_recipe("quick").about.changes == ()
    assert load_recipe("quick", ["model.weights=none", "training.seed=3"]).about.changes == ()
    changed = load_recipe("quick", ["training.epochs=4", "loss.label_smoothing=0"])
    assert changed.about.changes == ("loss.label_smoothing", "training.epochs")


def test_a_recipe_changed_twice_keeps_both_changes(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(load_recipe("quick", ["training.epochs=4"]).to_toml(), encoding="utf-8")
    assert load_recipe(str(path), ["training.batch_size=8"]).about.changes == ("training.batch_size", "training.epochs")


def test_signals_are_restored() -> None:
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requests() as requested:
        assert not requested()
        signal.raise_signal(signal.SIGTERM)
        assert requested()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
