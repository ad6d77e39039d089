"""docs/results.md: every committed result as Markdown, a pure function of the studies and their result files."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.compare import Comparisons, Difference
from lentigo.evaluation.markdown import table
from lentigo.evaluation.study import GridRow, Study

Result = Mapping[str, Any]
Tests = Mapping[str, tuple[Sequence[int], Comparisons]]
"""Split -> seeds and the tests on them."""
TESTED = ("accuracy", "balanced_accuracy", "macro_f1")
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_auc": "macro AUC",
    "log_loss": "log loss",
}
NOT_RUN = "not run"
HEAD = """# Results

Written by `python docs/generate.py` from the files in [results/](../results); [studies](how-to/studies.md)
says how they are made.

One seed: the value and its 95% interval from 2000 resamples of lesions. Several seeds: mean ± standard deviation over
the seeds, and in brackets the mean of the seeds' interval bounds: what the choice of images to judge on leaves open.
The epoch of a run is chosen on val (unless its recipe keeps the last), so val scores are a little too good. Tables of
test say how often each run was judged on it (looks, one number per seed)."""


def read_results(folder: Path) -> dict[str, Result]:
    """The runs' results in a folder by file stem; benchmarks are left out."""
    contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {stem: content for stem, content in contents.items() if "metrics" in content}


def results_page(
    studies: Mapping[str, Study], results: Mapping[str, Result], tests: Mapping[str, Tests] | None = None
) -> str:
    """The page. `studies` maps file names below studies/; `results` file stems; `tests` names of studies."""
    parts = [HEAD]
    for file, study in studies.items():
        parts += _study_section(file, study, results)
        parts += _tests_section(study, (tests or {}).get(study.name, {}))
    loose = loose_results(studies.values(), results)
    if loose:
        parts += ["## Single runs", "Results that belong to no study."]
        parts += [part for stem, result in loose.items() for part in _loose_section(stem, result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def loose_results(studies: Iterable[Study], results: Mapping[str, Result]) -> dict[str, Result]:
    """The results that no study's row names."""
    taken = {item.stem for study in studies for item in study.items()}
    return {stem: result for stem, result in results.items() if stem not in taken}


def row_results(study: Study, row: GridRow, results: Mapping[str, Result]) -> dict[int, Result]:
    """The results of a row by seed, those that are there."""
    found = {seed: results.get(study.item(row.id, seed).stem) for seed in row.seeds}
    return {seed: result for seed, result in found.items() if result is not None}


def estimate_text(estimates: Sequence[Mapping[str, Any]]) -> str:
    """One estimate as `0.707 [0.653, 0.756]`; several as `0.701 ± 0.004 [0.648, 0.750]`."""
    values = [estimate["value"] for estimate in estimates]
    if not values or None in values:
        return "undefined"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    bounds = [(estimate["ci_low"], estimate["ci_high"]) for estimate in estimates]
    interval = ""
    if all(low is not None and high is not None for low, high in bounds):
        low, high = (statistics.fmean(side) for side in zip(*bounds, strict=True))
        interval = f" [{low:.3f}, {high:.3f}]"
    return f"{statistics.fmean(values):.3f}{spread}{interval}"


def _study_section(file: str, study: Study, results: Mapping[str, Result]) -> list[str]:
    found = {row.id: row_results(study, row, results) for row in study.rows}
    every = [result for of_row in found.values() for result in of_row.values()]
    weights = any(row.weights not in ("", "imagenet", "none") for row in study.rows)
    command = f"lentigo study studies/{file} --data ham10000.csv" + (" --weights-dir weights" if weights else "")
    parts = [f"## {study.title}", " ".join(study.text.split())]
    parts += [f"Track {study.track}, [studies/{file}](../studies/{file}):", f"    {command}"]
    for split in ("val", "test"):
        if split not in study.splits and not any(split in result["metrics"] for result in every):
            continue
        judged = {
            row_id: {seed: result for seed, result in of_row.items() if split in result["metrics"]}
            for row_id, of_row in found.items()
        }
        parts += _split_tables(study, split, judged)
    return parts


def _tests_section(study: Study, tests: Tests) -> list[str]:
    """Each row's difference to the baseline, seeds and lesions resampled in pairs."""
    labels = {row.id: row.title for row in study.rows}
    parts: list[str] = []
    for split, (seeds, tested) in tests.items():
        header = ["against " + labels[tested.comparisons[0].baseline], *(METRICS[name] for name in TESTED)]
        header += ["p (Holm)", "finding", f"not worse by {tested.margin:g}"]
        lines = []
        for one in tested.comparisons:
            decided = one.metrics[tested.metric]
            unknown = {True: "shown", False: "not shown", None: "unknown"}
            lines.append(
                [
                    labels[one.other],
                    *(_difference_text(one.metrics[name]) for name in TESTED),
                    "undefined" if decided.p_holm is None else f"{decided.p_holm:.3f}",
                    decided.finding,
                    unknown[decided.non_inferior],
                ]
            )
        many = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
        parts += [
            f"### {study.name}, {split}: paired tests",
            table(header, lines),
            f"Differences with their {tested.interval}, {many} ({', '.join(map(str, seeds))}), {tested.resamples} "
            f"resamples; p and the last two columns are of {METRICS.get(tested.metric, tested.metric)}.",
            tested.notice,
        ]
    return parts


def _difference_text(found: Difference) -> str:
    if found.value is None:
        return "undefined"
    if found.ci_low is None or found.ci_high is None:
        return f"{found.value:+.3f}"
    return f"{found.value:+.3f} [{found.ci_low:+.3f}, {found.ci_high:+.3f}]"


def _split_tables(study: Study, split: str, judged: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """The scores of one split, the classes' recall, and what a program without eyes would score."""
    header = ["row", "seeds", *METRICS.values(), *(("looks",) if split == "test" else ("training", "recipe"))]
    lines = []
    for row in study.rows:
        of_row = judged[row.id]
        seeds = _seeds_text(study, row, of_row)
        if not of_row:
            lines.append([row.title, seeds, *[""] * (len(header) - 2)])
            continue
        runs = list(of_row.values())
        cells = [estimate_text([run["metrics"][split]["metrics"][name] for run in runs]) for name in METRICS]
        last = [_looks(runs)] if split == "test" else [_training(runs), _changes(runs[0])]
        lines.append([row.title, seeds, *cells, *last])
    parts = [f"### {study.name}, {split}", table(header, lines)]
    runs = [result for of_row in judged.values() for result in of_row.values()]
    if runs:
        parts.append(_baseline(runs[0]["metrics"][split], runs[0]))
    if study.per_class and runs:
        counts = {code: facts["n"] for code, facts in runs[0]["metrics"][split]["per_class"].items()}
        classes = [code for code in CLASS_CODES if counts[code]]
        parts += [
            f"Recall of each class on {split} (n images):",
            table(
                ("row", *(f"{code} ({counts[code]})" for code in classes)),
                [[row.title, *_recalls(judged[row.id], split, classes)] for row in study.rows if judged[row.id]],
            ),
        ]
    return parts


def _recalls(of_row: Mapping[int, Result], split: str, classes: Sequence[str]) -> list[str]:
    judgements = [result["metrics"][split]["per_class"] for result in of_row.values()]
    return [estimate_text([per_class[code]["recall"] for per_class in judgements]) for code in classes]


def _seeds_text(study: Study, row: GridRow, of_row: Mapping[int, Result]) -> str:
    """Links to the result of every seed, and how many are still missing."""
    if not of_row:
        return NOT_RUN
    links = ", ".join(f"[{seed}](../results/{study.item(row.id, seed).stem}.json)" for seed in of_row)
    missing = len(row.seeds) - len(of_row)
    return f"{links} (n = {len(of_row)}{f'; {missing} {NOT_RUN}' if missing else ''})"


def _training(runs: Sequence[Result]) -> str:
    """`20 epochs, 7500 steps, 41 min, 2 cores`: means over the seeds; `1 of 2 cores` where threads left some free."""
    parts = [f"{statistics.fmean(len(run['log']) for run in runs):g} epochs"]
    steps = [_steps(run) for run in runs]
    if all(steps):
        parts.append(f"{statistics.fmean(steps):.0f} steps")
    minutes = statistics.fmean((run["elapsed_s"] or 0.0) / 60 for run in runs)
    machines = sorted({cores_text(run["machine"]) for run in runs})
    return ", ".join([*parts, f"{minutes:.0f} min", " or ".join(machines)])


def cores_text(machine: Mapping[str, Any]) -> str:
    """`2 cores`, or `1 of 2 cores` where a training used fewer threads than there were cores."""
    cores, threads = machine["cores"], machine.get("threads")
    return f"{threads} of {cores} cores" if threads and threads < cores else f"{cores} cores"


def _steps(run: Result) -> int:
    """Optimiser steps; 0 where a mined row chose its own number of images."""
    mining = run["settings"].get("mining", {})
    images = mining.get("draws_per_epoch", 0) if mining.get("method", "none") != "none" else run["data"]["train_images"]
    return len(run["log"]) * int(images // run["settings"]["training"]["batch_size"])


def _changes(run: Result) -> str:
    changes = ", ".join(f"`{change}`" for change in run["recipe_changes"])
    return f"`{run['recipe']}`" + (f": {changes}" if changes else "")


def _looks(runs: Sequence[Result]) -> str:
    return " + ".join(str(run["test_looks"]) for run in runs)


def _baseline(judgement: Mapping[str, Any], result: Result) -> str:
    base = judgement["majority_baseline"]
    text = (
        f"n = {judgement['n_images']} images of {judgement['n_lesions']} lesions. Always answering {base['code']} "
        f"scores {base['accuracy']:.3f} accuracy, {base['balanced_accuracy']:.3f} balanced accuracy and "
        f"{base['macro_f1']:.3f} macro F1."
    )
    return f"{text} {SYNTHETIC_NOTICE}" if result["synthetic"] else text


def _loose_section(stem: str, result: Result) -> list[str]:
    lines = []
    for split, judgement in result["metrics"].items():
        cells = [estimate_text([judgement["metrics"][name]]) for name in METRICS]
        looks = _looks([result]) if split == "test" else ""
        lines.append([split, *cells, str(judgement["n_images"]), _training([result]), _changes(result), looks])
    header = ("split", *METRICS.values(), "n", "training", "recipe", "looks")
    return [
        f"### {stem}",
        f"Track {result['track']}, seed {result['seed']}, [results/{stem}.json](../results/{stem}.json):",
        "\n".join(f"    {line}" for line in _loose_commands(stem, result)),
        table(header, lines),
        *([SYNTHETIC_NOTICE] if result["synthetic"] else []),
    ]


def _loose_commands(stem: str, result: Result) -> list[str]:
    """How the result was made, read from the result itself."""
    settings, weights = result["settings"], result["settings"]["model"]["weights"]
    mining = settings.get("mining", {})
    if mining.get("parent"):
        words = ["lentigo", "mine", f"runs/{mining['parent']}", "--recipe", result["recipe"]]
        words += ["--control", mining["control"]] if mining["control"] != "none" else []
    else:
        words = ["lentigo", "train", f"{result['data']['name']}.csv", "--recipe", result["recipe"]]
        words += ["--weights", "none" if weights == "random start" else weights]
    words += ["--seed", str(result["seed"]), "--name", stem]
    for change in result["recipe_changes"]:
        section, _, key = change.partition(".")
        value = settings.get(section, {}).get(key)
        words += ["--set", f"{change}={value if isinstance(value, str) else json.dumps(value)}"]
    judging = [f"lentigo evaluate runs/{stem} --split {split}" for split in result["metrics"]]
    summary = f"lentigo report runs/{stem} --summary results/{stem}.json --track {result['track']}"
    return [shlex.join(words), *judging, summary]
