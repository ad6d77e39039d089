"""What an export says of its origin can be repeated elsewhere, and names no folder of this machine."""

from __future__ import annotations

import pytest

from lentigo.deploy.provenance import command_text


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["lentigo", "train", "ham10000.csv"], "lentigo train ham10000.csv"),
        (["lentigo", "train", "/data/ham 1/h.csv", "--seed", "3"], "lentigo train h.csv --seed 3"),
        (["lentigo", "--set", "model.weights=/data/v2.pth"], "lentigo --set model.weights=v2.pth"),
        (["lentigo", "mine", "runs/parent", "--data=/data/h.csv"], "lentigo mine runs/parent --data=h.csv"),
        (["lentigo", "train", "a b.csv", "--set", "loss.name=focal"], "lentigo train 'a b.csv' --set loss.name=focal"),
        ([], ""),
    ],
)
def test_commands_without_folders(argv: list[str], expected: str) -> None:
    assert command_text(argv) == expected
