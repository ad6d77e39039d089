"""Fixtures of the trainings: the tiny network, under its name only while a test runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lentigo.models.network import ARCHITECTURES

TINY_SCRIPT = Path(__file__).with_name("tiny.py")


def _load_tiny() -> ModuleType:
    specification = importlib.util.spec_from_file_location("lentigo_tests_tiny", TINY_SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_module() -> ModuleType:
    """The module tests/training/tiny.py."""
    return _load_tiny()


@pytest.fixture
def tiny(tiny_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same, its network known as `tiny` while the test runs."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny_module.TINY)
    return tiny_module


@pytest.fixture(scope="session")
def tiny_script() -> Path:
    """The path of tiny.py, to run it as a program."""
    return TINY_SCRIPT
