"""Errors: what a user is told outlives processes."""

from __future__ import annotations

import pickle

import pytest
from torch.utils.data import DataLoader, Dataset

from lentigo.core.errors import CheckpointError, DataError, ExitCode, LentigoError, MissingExtraError

ERRORS = [
    DataError("no image file at a: b.jpg", "Restore the file,\n  or remove its row."),
    CheckpointError("x.safetensors is damaged: lentigo.core.errors.DataError", "Train it again."),
    MissingExtraError("pydicom", "dicom"),
]


class Broken(Dataset[int]):
    """Raises an error wherever it is read."""

    def __init__(self, error: LentigoError) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise KeyError("what went wrong below")
        except KeyError:
            raise self.error from None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_a_loaders_worker_process_is_the_same_here(error: LentigoError) -> None:
    with pytest.raises(type(error)) as raised:
        next(iter(DataLoader(Broken(error), num_workers=1)))
    assert (raised.value.message, raised.value.remedy) == (error.message, error.remedy)
    assert raised.value.exit_code == error.exit_code != ExitCode.BUG
    assert str(raised.value) == str(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickling(error: LentigoError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.message, again.remedy, again.exit_code) == (error.message, error.remedy, error.exit_code)


def test_a_text_that_is_no_printed_error_is_the_message() -> None:
    assert (DataError("only this").message, DataError("only this").remedy) == ("only this", "")
