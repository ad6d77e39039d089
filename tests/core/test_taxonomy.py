"""The seven classes."""

from __future__ import annotations

import pytest

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import (
    CLASS_CODES,
    CLASSES,
    ISIC_2018_COLUMNS,
    MALIGNANT_LABELS,
    NUM_CLASSES,
    find_label,
    parse_label,
    suggest_class,
)


def test_order_and_malignancy_are_those_of_the_data_sets() -> None:
    assert CLASS_CODES == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert NUM_CLASSES == 7
    assert {CLASS_CODES[label] for label in MALIGNANT_LABELS} == {"akiec", "bcc", "mel"}
    assert sorted(column.lower() for column in ISIC_2018_COLUMNS) == sorted(CLASS_CODES)


def test_every_name_and_alias_leads_to_its_class_and_no_alias_to_two() -> None:
    names = [(name, label) for label, c in enumerate(CLASSES) for name in (c.code, c.name, c.label_text, *c.aliases)]
    assert all(find_label(name) == label for name, label in names)
    lowered = [alias for c in CLASSES for alias in (c.code, *c.aliases)]
    assert len(set(lowered)) == len(lowered)


@pytest.mark.parametrize("name", [" MEL ", "Melanoma", "melanoma", "mel"])
def test_spelling(name: str) -> None:
    assert parse_label(name) == 4


def test_underscores_and_spaces() -> None:
    assert parse_label("basal_cell  carcinoma") == 1


def test_unknown_names() -> None:
    assert find_label("wart") is None
    assert find_label("") is None
    assert suggest_class("melanomma") == "mel"
    with pytest.raises(DataError, match="unknown class 'melanomma'") as error:
        parse_label("melanomma")
    assert "did you mean 'mel'" in error.value.remedy
    with pytest.raises(DataError) as error:
        parse_label("zzzzzz")
    assert "did you mean" not in error.value.remedy
