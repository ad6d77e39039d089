"""Recipes: what they hold, what they refuse, and that they come back from TOML as they were."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from lentigo.core.config import AugmentConfig, Config
from lentigo.core.errors import ConfigError
from lentigo.core.recipes import all_keys, load_recipe, parse_config, recipe_names
from lentigo.models.network import ARCHITECTURES


def test_every_key_has_a_type_a_default_and_a_description() -> None:
    keys = all_keys()
    assert len(keys) > 50
    assert [key for key, (kind, _, text) in keys.items() if not kind or not text.strip()] == []
    assert keys["training.epochs"] == ("integer >= 1, <= 10000", "8", "passes over the training set")
    assert keys["training.precision"][0] == "auto | 32 | bf16 | 16"
    assert keys["data.train_splits"][0] == "list of train | extra"


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_round_trip(name: str, tmp_path: Path) -> None:
    config = load_recipe(name)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == config
    assert config.about.name == name
    assert config.about.cost
    assert config.about.expected
    assert config.model.architecture in ARCHITECTURES


def test_toml_writes_every_key() -> None:
    written = tomllib.loads(load_recipe("demo").to_toml())
    keys = {f"{section}.{key}" for section, values in written.items() for key in values}
    assert all_keys().keys() - keys == set(), "demo sets every key that may be None"
    assert keys - all_keys().keys() == set()


@pytest.mark.parametrize("name, architecture", [("paper-v2", "mobilenet_v2"), ("paper-v3", "mobilenet_v3_large")])
def test_paper_recipes_hold_the_values_of_the_report(name: str, architecture: str) -> None:
    config = load_recipe(name)
    assert config.model_dump(exclude={"about"}) == Config.model_validate(
        {
            "preprocess": {"color_mode": "gray", "resize_steps_px": (300, 224), "resize_rule": "squash"},
            "augment": {
                "rotation_degrees": 15, "shift": 0.1, "zoom": 0.1, "horizontal_flip": 0.5,
                "vertical_flip": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0, "hue": 0,
                "crop_min_area": 1,
            },
            "model": {
                "architecture": architecture, "weights": "imagenet", "dropout": 0.2, "batch_norm": "train",
            },
            "optimizer": {
                "learning_rate": 1e-4, "weight_decay": 0.01, "decay_norm": True, "layer_decay": 1,
                "schedule": "constant", "warmup_fraction": 0, "head_only_epochs": 0, "gradient_clip_norm": 0,
            },
            "loss": {"kind": "cross_entropy", "label_smoothing": 0, "class_weights": "none"},
            "regularization": {"ema_decay": 0, "mixup_alpha": 0, "cutmix_alpha": 0},
            "training": {
                "epochs": 20, "batch_size": 8, "sampler": "inverse", "selection_metric": "accuracy",
                "early_stop_epochs": 0, "time_limit_min": 0, "precision": "32",
            },
        }
    ).model_dump(exclude={"about"})  # fmt: skip


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_recipe("quick").training.epochs = 3  # type: ignore[misc]


def test_overrides_take_toml_types_and_bare_words() -> None:
    config = load_recipe(
        "quick",
        [
            "training.epochs=3", "optimizer.learning_rate = 2e-4", "model.weights=none",
            'model.architecture="mobilenet_v2"', "training.channels_last=false",
            "preprocess.resize_steps_px=[300, 160]", "data.train_splits=['train', 'extra']",
            "training.epochs=4", "training.precision=bf16", "model.weights=some/where.pth",
        ],
    )  # fmt: skip
    assert config.training.epochs == 4, "the last one holds"
    assert config.optimizer.learning_rate == 2e-4
    assert config.model.weights == "some/where.pth"
    assert config.training.channels_last is False
    assert config.preprocess.resize_steps_px == (300, 160)
    assert config.data.train_splits == ("train", "extra")
    assert config.training.precision == "bf16"


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.epoch=3", r"did you mean training\.epochs\?"),
        ("training.epochs", "section.key=value"),
        ("epochs=3", "section.key=value"),
        ("a.b.c=3", "section.key=value"),
        ("training.epochs=many", r"training\.epochs: .*integer.*'many'"),
        ("training.epochs=2.5", r"training\.epochs"),
        ("training.epochs=0", r"training\.epochs: .*greater than or equal to 1"),
        ("training.channels_last=maybe", r"training\.channels_last: .*boolean"),
        ("optimizer.learning_rate=nan", r"optimizer\.learning_rate"),
        ("regularization.ema_decay=1", r"regularization\.ema_decay: .*less than 1"),
        ("preprocess.resize_steps_px=[]", r"preprocess\.resize_steps_px"),
        ("preprocess.color_mode=grey", r"'gray' or 'rgb'.*'grey'"),
        ("data.train_splits=['train','val']", "Input should be 'train' or 'extra'"),
        ("data.train_splits=[]", "at least 1 item"),
        ("optimizer.head_only_epochs=8", "must be less than training.epochs"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe("quick", [override])
    assert error.value.remedy


@pytest.mark.parametrize(
    "sampler, weights, allowed",
    [
        ("inverse", "inverse", False),
        ("inverse", "sqrt", False),
        ("sqrt", "inverse", False),
        ("sqrt", "sqrt", True),
        ("inverse", "none", True),
        ("none", "inverse", True),
    ],
)
def test_class_imbalance_is_corrected_once(sampler: str, weights: str, allowed: bool) -> None:
    sections = {"training": {"sampler": sampler}, "loss": {"class_weights": weights}}
    if allowed:
        assert parse_config(sections, "x").training.sampler == sampler
        return
    with pytest.raises(ConfigError, match=r"corrected twice: .* inverse once or sqrt twice"):
        parse_config(sections, "x")


def test_mixing_needs_cross_entropy() -> None:
    with pytest.raises(ConfigError, match="mixup and cutmix need"):
        parse_config({"loss": {"kind": "focal"}, "regularization": {"mixup_alpha": 0.2}}, "x")


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"loss": {"kind": "focal", "label_smoothing": 0.05}}, "focal smooths no labels; set loss.label_smoothing = 0"),
        ({"training": {"selection_metric": "last", "early_stop_epochs": 3}}, "set early_stop_epochs = 0 or another"),
        ({"mining": {"method": "report", "control": "hard_only"}}, "hard_only is what mining.method = report does"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(sections, "x")


def test_a_logit_adjusted_loss_takes_no_teachers_but_the_model_that_a_round_continues() -> None:
    loss, taught = {"kind": "logit_adjusted"}, {"weight": 0.5, "teachers": ["a.safetensors"]}
    with pytest.raises(ConfigError, match=r"put back the class prior.*distillation\.weight = 0"):
        parse_config({"loss": loss, "distillation": taught}, "x")
    with pytest.raises(ConfigError, match="put back the class prior"):
        parse_config({"loss": loss, "distillation": taught, "mining": {"method": "out_of_fold"}}, "x")
    continued = {"model": {"weights": "a.safetensors"}, "mining": {"method": "out_of_fold"}}
    assert parse_config({"loss": loss, "distillation": taught, **continued}, "x").distillation.weight == 0.5
    assert parse_config({"loss": loss}, "x").distillation.weight == 0


def test_all_problems_at_once_with_the_nearest_key() -> None:
    wrong = {
        "trainings": {"epochs": 3},
        "training": {"batchsize": 3, "epochs": -1},
        "model": {"dropout": "much"},
        "optimizer": 3,
    }
    with pytest.raises(ConfigError) as error:
        parse_config(wrong, "my.toml")
    text = error.value.message
    assert text.startswith("my.toml: 5 wrong settings")
    assert "trainings: no such key (did you mean training?)" in text
    assert "training.batchsize: no such key (did you mean training.batch_size?)" in text
    assert "training.epochs" in text
    assert "model.dropout" in text
    assert "'much'" in text
    assert "optimizer: " in text


def test_a_long_list_of_problems_is_counted() -> None:
    with pytest.raises(ConfigError, match=r"8 wrong settings.*and 3 more"):
        parse_config({"training": {f"key{i}": 1 for i in range(8)}}, "x")


def test_unknown_recipe_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'paper-v4'") as error:
        load_recipe("paper-v4")
    assert "'paper-v" in error.value.remedy
    broken = tmp_path / "broken.toml"
    broken.write_text("[training\nepochs = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_recipe(str(broken))
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(str(broken))
    broken.write_text("training = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[training\] must be a table"):
        load_recipe(str(broken), ["training.epochs=3"])


def test_defaults_change_nothing_about_an_image() -> None:
    neutral = AugmentConfig()  # type: ignore[call-arg]
    assert set(neutral.model_dump().values()) == {0.0, 1.0}
    assert neutral.crop_min_area == 1.0
