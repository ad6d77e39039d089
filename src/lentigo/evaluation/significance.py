"""p-values of paired tests, and their correction where several systems are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lentigo.core.errors import DataError
from lentigo.evaluation.metrics import Floats


def bootstrap_p(differences: Floats) -> float | None:
    """Two-sided p of no difference, from resampled differences (B,): 2 min(share <= 0, share >= 0).

    This asks at which level the percentile interval would just touch 0 (Efron & Tibshirani, An Introduction to
    the Bootstrap, 1993, section 15.4). One is added to both counts, so that p is never 0 (Phipson & Smyth, Stat.
    Appl. Genet. Mol. Biol. 9(1), 2010): the least p is 2 / (B + 1). None without a defined resample, or where
    all agree on a difference that is not 0: then the resamples cannot tell how sure that is.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined) or (np.ptp(defined) == 0.0 and defined[0] != 0.0):
        return None
    fewer = min(np.count_nonzero(defined <= 0.0), np.count_nonzero(defined >= 0.0))
    return float(min(1.0, 2.0 * (fewer + 1) / (len(defined) + 1)))


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided p of McNemar's test (Psychometrika 12, 1947): a fair coin gave so uneven a split, or more so.

    first_only, second_only: images that one of two systems alone answers right.
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    term, total = 1, 0
    for i in range(fewer + 1):
        total += term
        term = term * (count - i) // (i + 1)
    share: float = 2 * total / 2**count  # integers divide correctly rounded, however large
    return min(1.0, share)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in their order (Scand. J. Stat. 6, 1979).

    The smallest is multiplied by the size m of the family, the next by m - 1 and so on; none falls below a
    smaller one's result or rises above 1.

    Raises:
        DataError: where a number is no p-value.
    """
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise DataError(f"expected p-values in 0..1; found {list(p_values)}", "Leave undefined ones out.")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def holm_over(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm over named p-values. An undefined one stays in the family, or the others' correction would be milder."""
    corrected = holm([1.0 if p is None else p for p in p_values.values()])
    return {name: None if p is None else one for (name, p), one in zip(p_values.items(), corrected, strict=True)}
