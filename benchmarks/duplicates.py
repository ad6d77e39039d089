"""What the near-duplicate search finds on a data set with lesion ids, and how fast.

A pair of one lesion id is right; a pair with different diagnoses is wrong for sure; a pair of different lesions with
one diagnosis must be judged by eye. Prints JSON and, with --out, writes it.

    python benchmarks/duplicates.py ham10000.csv --out results/benchmark-duplicates.json
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from recording import record

from lentigo.data.catalog import Catalog, side
from lentigo.data.duplicates import fingerprint, merge_groups, near_duplicate_pairs
from lentigo.data.sources import load_catalog


def measure(catalog: Catalog) -> dict[str, Any]:
    """Counts of pairs by kind, and seconds."""
    threads = os.cpu_count() or 1
    start_s = time.perf_counter()
    prints = fingerprint(catalog.rows, threads=threads)
    read_s = time.perf_counter()
    pairs = near_duplicate_pairs(prints, threads=threads)
    end_s = time.perf_counter()
    row_of = {row.image_id: row for row in catalog}
    kinds: Counter[str] = Counter()
    across: list[str] = []
    for pair in pairs:
        first, second = row_of[pair.first], row_of[pair.second]
        if first.lesion_id == second.lesion_id:
            kinds["same_lesion"] += 1
        else:
            kinds["other_lesion_same_diagnosis" if first.label == second.label else "different_diagnoses"] += 1
        if first.split and second.split and side(first.split) != side(second.split):
            across.append(f"{pair.first} ({first.split}) ~ {pair.second} ({second.split})")
    images_of = Counter(row.lesion_id for row in catalog)
    labels = Counter(row.label for row in catalog)
    total = len(catalog)
    return {
        "images": total,
        "lesions": len(images_of),
        "groups_after_merging": len(set(merge_groups(catalog, pairs).values())),
        "pairs_found": {"all": len(pairs), **kinds, "different_diagnoses": kinds["different_diagnoses"]},
        "pairs_of_one_lesion_id": sum(n * (n - 1) // 2 for n in images_of.values()),
        "pairs_with_different_diagnoses": (total**2 - sum(n**2 for n in labels.values())) // 2,
        "across_the_given_splits": across,
        "seconds": {"reading": round(read_s - start_s, 1), "comparing": round(end_s - read_s, 1)},
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="HAM10000-style CSV")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record(measure(load_catalog(arguments.data)), arguments.out)


if __name__ == "__main__":
    main()
