"""When to give no answer: a rule chosen on val by what it promises, and what it costs.

A user of a rule that abstains expects that the answers still given are right as often as stated. So the rule is
chosen by the error among accepted answers, not by how many are accepted: the loosest limit whose error is, with
95% confidence, at most `max_error` on lesions like those of val. Limits are tried from strict to loose and the last
one before the first failure is kept; tests in an order that is fixed beforehand need no correction for their number
(Angelopoulos et al., Learn then Test, arXiv 2110.01052; selective risk: Geifman & El-Yaniv, NeurIPS 2017).

The promise is about all classes together, and most lesions are nevi: a rule can keep it and still let melanomas
through as nevi. `judge_rule` shows each class, and the malignant images that are accepted with a benign answer.

Shapes: N images, C = 7 classes; right, accepted (N,) bool; confidence (N,) float64, the largest calibrated
probability; sizes (N,) int64, classes in the prediction set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import ConfigError
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS, NUM_CLASSES
from lentigo.evaluation.conformal import round_up
from lentigo.evaluation.intervals import Rows, proportions
from lentigo.evaluation.metrics import CONFIDENCE, Estimate, Floats, Groups, Labels

RuleKind = Literal["confidence", "set_size"]
Counts = NDArray[np.int64]
COVERAGE_STEPS = 20
"""Confidence limits are tried at 1/20, 2/20, ... of the val images: fixed before any answer is looked at."""
_ROOM = 4
"""Of 116 lesions 6 may be wrong at 10%: a model that is right in 98% of its surest answers gets there nearly always."""


class AbstainRule(BaseModel):
    """A fitted rule. `confidence` accepts at `limit` or above, `set_size` accepts sets of 1 to `limit` classes.

    `error` is the share of wrong ones among the `n` val lesions that it accepts, `error_bound` the upper end of its
    one-sided 95% interval. Without a limit nothing is accepted, and `reason` says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: RuleKind
    max_error: float
    limit: float | None
    n: int
    error: float | None
    error_bound: float | None
    reason: str = ""

    def accepts(self, confidence: Floats, sizes: Counts) -> Rows:
        """Which answers (N,) are given; `confidence` (N,) and `sizes` (N,) as in the module's text."""
        if self.limit is None:
            return np.zeros(len(confidence), dtype=np.bool_)
        return _accepts(self.kind, self.limit, confidence, sizes)


class RuleJudgement(BaseModel):
    """What a rule did on N images that it was not chosen on.

    `accepted`: share of images answered; `error`: share of wrong ones among these; both also per class of the truth.
    `malignant_as_benign`: share of all malignant images that are accepted with a benign answer, beside
    `malignant_as_benign_without`, the same if every image were answered.
    """

    model_config = ConfigDict(frozen=True)

    kind: RuleKind
    accepted: Estimate
    error: Estimate
    error_without: Estimate
    accepted_per_class: dict[str, Estimate]
    error_per_class: dict[str, Estimate]
    malignant_as_benign: Estimate
    malignant_as_benign_without: Estimate


def fit_rule(
    right: Rows,
    confidence: Floats,
    sizes: Counts,
    groups: Groups,
    *,
    kind: RuleKind = "confidence",
    max_error: float = 0.1,
) -> AbstainRule:
    """The loosest rule whose accepted answers are, with 95% confidence, wrong in at most a share `max_error`.

    Errors are counted by lesion: one with several images is wrong if any accepted answer is. The bound is that of
    Clopper & Pearson (Biometrika 26, 1934). With few lesions (28 for 10%) a limit fails even without an error, and
    with hardly more one error ends the search. So limits that accept fewer than four times as many, or than half
    the lesions of a small val set, are left out beforehand. Where the strictest of the others fails there is no rule.

    Raises:
        ConfigError: where `max_error` is not between 0 and 1.
    """
    if not 0.0 < max_error < 1.0:
        raise ConfigError(f"expected max_error between 0 and 1; found {max_error}", "0.1 allows one error in ten.")
    least_n = round_up(np.log(1.0 - CONFIDENCE) / np.log(1.0 - max_error))
    lesions = np.asarray(groups, dtype=np.str_)
    first_n = max(least_n, min(_ROOM * least_n, len(np.unique(lesions)) // 2))
    kept: AbstainRule | None = None
    reason = f"no limit accepts {first_n} lesions"
    for limit in _limits(kind, confidence):
        accepted = _accepts(kind, limit, confidence, sizes)
        n, wrong = len(np.unique(lesions[accepted])), len(np.unique(lesions[accepted & ~right]))
        if n < first_n:
            continue
        bound = error_bound(wrong, n)
        if bound > max_error:
            reason = (
                f"the strictest limit tried has {wrong} errors in {n} lesions, up to {bound:.1%} with 95% confidence"
            )
            break
        kept = AbstainRule(kind=kind, max_error=max_error, limit=limit, n=n, error=wrong / n, error_bound=bound)
    if kept is not None:
        return kept
    return AbstainRule(kind=kind, max_error=max_error, limit=None, n=0, error=None, error_bound=None, reason=reason)


def error_bound(wrong: int, count: int) -> float:
    """Upper end of the one-sided 95% interval of an error rate, `wrong` of `count` > 0 (Clopper & Pearson, 1934)."""
    from scipy.stats import beta  # the runtime applies rules without scipy

    return 1.0 if wrong == count else float(beta.ppf(CONFIDENCE, wrong + 1, count - wrong))


def judge_rule(
    labels: Labels,
    answers: Labels,
    accepted: Rows,
    groups: Groups,
    *,
    kind: RuleKind,
    resamples: int = 2000,
    seed: int = 0,
) -> RuleJudgement:
    """What abstaining changed for answers (N,); intervals as in `intervals.proportions`."""
    wrong, malignant = answers != labels, np.isin(labels, MALIGNANT_LABELS)
    missed, everyone = malignant & ~np.isin(answers, MALIGNANT_LABELS), np.ones(len(labels), dtype=np.bool_)
    shares = {
        "accepted": (accepted, everyone),
        "error": (wrong, accepted),
        "error_without": (wrong, everyone),
        "malignant_as_benign": (missed & accepted, malignant),
        "malignant_as_benign_without": (missed, malignant),
    }
    for c, code in enumerate(CLASS_CODES):
        shares[f"accepted/{code}"] = (accepted, labels == c)
        shares[f"error/{code}"] = (wrong, accepted & (labels == c))
    found = proportions(shares, groups, resamples=resamples, seed=seed)
    return RuleJudgement(
        kind=kind,
        accepted=found["accepted"],
        error=found["error"],
        error_without=found["error_without"],
        accepted_per_class={code: found[f"accepted/{code}"] for code in CLASS_CODES},
        error_per_class={code: found[f"error/{code}"] for code in CLASS_CODES},
        malignant_as_benign=found["malignant_as_benign"],
        malignant_as_benign_without=found["malignant_as_benign_without"],
    )


def _accepts(kind: RuleKind, limit: float, confidence: Floats, sizes: Counts) -> Rows:
    accepted: Rows = confidence >= limit if kind == "confidence" else (sizes >= 1) & (sizes <= limit)
    return accepted


def _limits(kind: RuleKind, confidence: Floats) -> Sequence[float]:
    """The limits to try, strictest first; they depend on no label."""
    if kind == "set_size":
        return range(1, NUM_CLASSES + 1)
    descending = np.sort(confidence)[::-1]
    ranks = {round_up(len(descending) * step / COVERAGE_STEPS) for step in range(1, COVERAGE_STEPS + 1)}
    return [float(descending[rank - 1]) for rank in sorted(ranks) if rank]
