"""The stream of answers: in order, the same for every batch, bounded, and unmoved by single bad images."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import Failure, Outcome, predict_stream
from lentigo.deploy.inputs import Item, find_items
from lentigo.deploy.prediction import Prediction

COUNT = 23
BAD = (3, 4, 11)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 pictures, of which 3 cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        path = folder / f"{number:02d}.png"
        Image.fromarray(generator.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(path)
        if number in BAD:
            path.write_bytes(path.read_bytes()[: 100 * (number - 3)])
    return folder


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model, threads=1)


def answers(outcomes: list[Outcome]) -> list[Prediction | Failure]:
    return [outcome.answer for outcome in outcomes]


def test_answers_are_those_of_predict_in_the_given_order(classifier: Classifier, images: Path) -> None:
    items = find_items([images])
    outcomes = list(predict_stream(classifier, items, workers=2, batch_size=4))
    assert [outcome.item for outcome in outcomes] == list(items)
    for number, (item, answer) in enumerate(zip(items, answers(outcomes), strict=True)):
        if number in BAD:
            assert isinstance(answer, Failure)
            assert item.name in answer.error
            assert answer.remedy
        else:
            assert answer == classifier.predict(item.path)[0]


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_batch_size_gives_exactly_the_same(
    tiny_model: Path, images: Path, views: int, batch_size: int, workers: int
) -> None:
    classifier = Classifier.load(tiny_model, threads=1, views=views)
    items = find_items([images])
    expected = answers(list(predict_stream(classifier, items, workers=1, batch_size=5)))
    assert answers(list(predict_stream(classifier, items, workers=workers, batch_size=batch_size))) == expected
    without = [item for number, item in enumerate(items) if number % 3]
    fewer = answers(list(predict_stream(classifier, without, workers=workers, batch_size=batch_size)))
    assert fewer == [answer for number, answer in enumerate(expected) if number % 3], "answers depend on neighbours"


def test_squares_come_along_only_where_they_are_wanted(classifier: Classifier, images: Path) -> None:
    items = find_items([images])[:5]
    assert {outcome.pixels is None for outcome in predict_stream(classifier, items, workers=2)} == {True}
    kept = list(predict_stream(classifier, items, workers=2, keep_pixels=True))
    assert [outcome.pixels is None for outcome in kept] == [number in BAD for number in range(5)]
    assert (kept[0].pixels == classifier.prepare(items[0].path).pixels).all()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MemoryError(), "(MemoryError)"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (ValueError("odd\nlines \x1b[31m"), r"odd\nlines \x1b[31m"),
        (MissingExtraError("pydicom", "dicom"), "pydicom"),
    ],
)
def test_whatever_a_decoder_raises_is_one_failure(
    classifier: Classifier, images: Path, raised: Exception, said: str
) -> None:
    items = [item for number, item in enumerate(find_items([images])) if number not in BAD]

    def read(self: Item) -> Path:
        if self is items[2]:
            raise raised
        return self.path

    with mock.patch.object(Item, "read", read):
        found = answers(list(predict_stream(classifier, items, workers=2, batch_size=3)))
    assert [isinstance(one, Failure) for one in found] == [number == 2 for number in range(len(items))]
    failure = found[2]
    assert isinstance(failure, Failure)
    assert said in failure.error
    assert failure.error.isprintable()
    assert failure.remedy


class Counting:
    """`Item.read` that counts how many images were begun."""

    def __init__(self) -> None:
        self.begun, self.lock = 0, threading.Lock()

    def __call__(self, item: Item) -> Path:
        with self.lock:
            self.begun += 1
        return item.path


def test_a_slow_reader_bounds_what_is_begun(classifier: Classifier, images: Path) -> None:
    items = find_items([images])[5:11] * 50
    counting = Counting()
    with mock.patch.object(Item, "read", lambda self: counting(self)):
        stream = predict_stream(classifier, items, workers=2, batch_size=5)
        list(islice(stream, 10))
        time.sleep(0.3)
        assert counting.begun <= 10 + 4 * 5
        stream.close()
        assert counting.begun <= 10 + 4 * 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]


def test_an_interruption_ends_the_threads(classifier: Classifier, images: Path) -> None:
    items = find_items([images])[5:11] * 50
    counting = Counting()

    def consume() -> None:
        for number, _ in enumerate(predict_stream(classifier, items, workers=2, batch_size=5)):
            if number == 7:
                raise KeyboardInterrupt

    with mock.patch.object(Item, "read", lambda self: counting(self)), pytest.raises(KeyboardInterrupt):
        consume()
    deadline = time.monotonic() + 5
    while [one for one in threading.enumerate() if one.name.startswith("predict")] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [one for one in threading.enumerate() if one.name.startswith("predict")]
    assert counting.begun < len(items)


def test_no_items_no_outcomes(classifier: Classifier) -> None:
    assert list(predict_stream(classifier, (), workers=2)) == []


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 4), (1, 0)])
def test_impossible_settings(classifier: Classifier, workers: int, batch_size: int) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        predict_stream(classifier, (), workers=workers, batch_size=batch_size)
