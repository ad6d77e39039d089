"""The same rows from Ray Data as from the threads of one process."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import MissingExtraError
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import predict_stream
from lentigo.deploy.inputs import find_items
from lentigo.deploy.ray_engine import predict_with_ray


def test_without_ray_the_extra_is_named(tiny_model: Path) -> None:
    with mock.patch.dict(sys.modules, {"ray": None}), pytest.raises(MissingExtraError, match=r"lentigo\[ray\]"):
        predict_with_ray(tiny_model, (), variant="fp32", views=1, quality=True, workers=2)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason='needs ray: pip install "lentigo[ray]"')
def test_two_workers_give_the_same_rows(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        picture = Image.fromarray(generator.integers(0, 256, (50, 40, 3), dtype=np.uint8))
        picture.save(f"images/{number:02d}.png")
    Path("images/07.png").write_bytes(b"no image")
    items = find_items(["images"])  # relative: messages hold the path as it was given
    classifier = Classifier.load(tiny_model, threads=1, views=4)
    expected = list(predict_stream(classifier, items, workers=2, keep_pixels=True))
    found = list(
        predict_with_ray(
            tiny_model, items, variant="fp32", views=4, quality=True, workers=2, batch_size=3, keep_pixels=True
        )
    )
    assert [outcome.item for outcome in found] == list(items)
    assert [outcome.answer for outcome in found] == [outcome.answer for outcome in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.pixels is None and other.pixels is None) or (one.pixels == other.pixels).all()
