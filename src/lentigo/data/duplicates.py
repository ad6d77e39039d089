"""Find photographs of one lesion under different ids, and merge lesions that share a photograph.

Every dermoscopic photograph is a dark blob on skin, so a perceptual hash alone is no evidence: on the
10,015 images of HAM10000, 20,177 pairs lie within 8 of 64 bits (best of eight turns), and 105 of them are
of one lesion. So the hash only names candidates (Hamming distance of the whole image to crops of 1.0, 0.84
and 0.70 in eight turns), and a candidate counts if phase correlation registers the fine texture of both and
the blocks of the registered pictures agree. Measured there, pairs of one lesion id / pairs with different
diagnoses (26.2 million, surely wrong):

    unturned, peak >= 0.18: 282 / 2      >= 0.21 and blocks >= 0.30, as set: 240 / 0      >= 0.24: 223 / 0
    turned,   peak >= 0.18:   1 / 3      >= 0.21: 1 / 0      (set to 0.23: seven times the chances)
    for comparison, plain correlation of 32x32 gray, 8 turns, >= 0.95: 79 / 991      >= 0.98: 46 / 3

`python benchmarks/duplicates.py` repeats the count at the limits as set (results/benchmark-duplicates.json): 248 pairs,
of which 7 join different lesion ids, all of one diagnosis, and by eye all 7 are right. The other rows come from sweeps
while the limits were chosen, on the same images. The search finds the same picture again, shifted, zoomed to 0.7,
flipped, recoloured. Of the 3,207 pairs that HAM10000 itself names it finds 241: a lesion photographed anew at another
scale or angle mostly goes unseen, so lesion ids stay necessary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, first_five
from lentigo.data.catalog import Catalog, Row
from lentigo.data.fingerprints import Fingerprint, fingerprint
from lentigo.data.registration import block_correlation, correlation_peaks, resampling, texture_spectra

__all__ = ["DuplicatePair", "Fingerprint", "fingerprint", "known_groups", "merge_groups", "near_duplicate_pairs"]

ZOOMS = (1.0, 0.84, 0.70)
"""Centre crops of one image that are compared with the whole of the other."""
UPRIGHT_DISTANCE, TURNED_DISTANCE = 12, 6
"""Largest Hamming distance of 63 bits at which a pair is looked at: unturned, and flipped or turned."""
UPRIGHT_CORRELATION, TURNED_CORRELATION = 0.21, 0.23
"""Smallest peak of the phase correlation of a duplicate."""
BLOCK_CORRELATION = 0.30
"""Smallest mean correlation of 16 registered blocks of a duplicate."""

_HASH_PX = 32
_ROWS = 500
_FLAT_LEVELS = 2.0


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two images of one lesion, in the order of the fingerprints.

    distance: Hamming distance of the hashes, 0..63; correlation: peak of the phase correlation, at most 1;
    exact: the files are identical byte for byte.
    """

    first: str
    second: str
    distance: int
    correlation: float
    exact: bool


def near_duplicate_pairs(fingerprints: Sequence[Fingerprint], *, threads: int = 1) -> list[DuplicatePair]:
    """All pairs of images that show one photograph or one lesion, ordered as the fingerprints are.

    Of k identical files, k - 1 pairs with the first of them are given. Unreadable and blank images pair with
    nothing but identical files.
    """
    first_of: dict[str, int] = {}
    pairs: dict[tuple[int, int], DuplicatePair] = {}
    for index, item in enumerate(fingerprints):
        first = first_of.setdefault(item.sha256, index) if item.sha256 else index
        if first != index:
            name = fingerprints[first].image_id
            pairs[first, index] = DuplicatePair(name, item.image_id, 0, 1.0, True)
    usable = [i for i in first_of.values() if _has_contrast(fingerprints[i])]
    if len(usable) < 2:
        return [pairs[key] for key in sorted(pairs)]
    thumbnails = np.array([fingerprints[i].thumbnail for i in usable], dtype=np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        for place, other, distance, correlation in _verified(thumbnails, pool):
            low, high = sorted((usable[place], usable[other]))
            known = pairs.get((low, high))
            if known is None or correlation > known.correlation:
                names = fingerprints[low].image_id, fingerprints[high].image_id
                pairs[low, high] = DuplicatePair(*names, distance, correlation, False)
    return [pairs[key] for key in sorted(pairs)]


def merge_groups(catalog: Catalog, pairs: Sequence[DuplicatePair]) -> dict[str, str]:
    """image_id -> group id: lesions joined by a duplicate pair, a patient or a group id are one group.

    A group is named by its smallest lesion id, whatever the order of the rows.

    Raises:
        DataError: where a pair names an image that the catalogue lacks.
    """
    lesion_of = {row.image_id: row.lesion_id for row in catalog}
    unknown = sorted({name for pair in pairs for name in (pair.first, pair.second)} - lesion_of.keys())
    if unknown:
        raise DataError(
            f"duplicate pairs must name images of the catalogue; {len(unknown)} are not in it: {first_five(unknown)}",
            "Search for duplicates in the same catalogue.",
        )
    doubles = [(lesion_of[pair.first], lesion_of[pair.second]) for pair in pairs]
    given = [*_lesions_by(catalog.rows, "patient_id"), *_lesions_by(catalog.rows, "group_id")]
    group_of = _join(lesion_of.values(), [*doubles, *given])
    return {image_id: group_of[lesion] for image_id, lesion in lesion_of.items()}


def known_groups(rows: Sequence[Row]) -> list[str]:
    """The group of each row: lesions that share a patient or a group id, of which each row may lack any, are one.

    A group is named by the smallest of its rows' group ids; a row without one stands for its patient, or lesion.
    """
    together = [*_lesions_by(rows, "group_id"), *_lesions_by(rows, "patient_id")]
    joined = _join((row.lesion_id for row in rows), together)
    names: dict[str, str] = {}
    for row in rows:
        own, group = row.group_id or row.patient_id or row.lesion_id, joined[row.lesion_id]
        names[group] = min(own, names.get(group, own))
    return [names[joined[row.lesion_id]] for row in rows]


def _join(lesions: Iterable[str], together: Iterable[Sequence[str]]) -> dict[str, str]:
    """Lesion -> the smallest of all lesions that it is joined to, directly or through others."""
    parent = {lesion: lesion for lesion in lesions}

    def root(lesion: str) -> str:
        while parent[lesion] != lesion:
            parent[lesion] = lesion = parent[parent[lesion]]
        return lesion

    for first, *rest in together:
        for other in rest:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return {lesion: root(lesion) for lesion in parent}


def _lesions_by(rows: Sequence[Row], column: str) -> list[list[str]]:
    """The lesions of each patient or group that a column names; an empty cell joins nothing."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if name := getattr(row, column):
            found[name].append(row.lesion_id)
    return list(found.values())


def _has_contrast(item: Fingerprint) -> bool:
    return item.thumbnail is not None and float(item.thumbnail.std()) >= _FLAT_LEVELS


def _verified(thumbnails: NDArray[np.uint8], pool: ThreadPoolExecutor) -> Iterator[tuple[int, int, int, float]]:
    """(index, index, Hamming distance, correlation) of the pairs of (N, 96, 96) that register."""
    plain = _hashes(thumbnails, 1.0)[0]
    spectra = texture_spectra(thumbnails, 1.0, pool)
    for zoom in ZOOMS:
        zoomed = spectra if zoom == 1.0 else texture_spectra(thumbnails, zoom, pool)
        for turn, hashes in enumerate(_hashes(thumbnails, zoom)):
            wholes, crops, distances = _candidates(plain, hashes, turn, zoom == 1.0, pool)
            least = TURNED_CORRELATION if turn else UPRIGHT_CORRELATION
            peaks = correlation_peaks(spectra, zoomed, wholes, crops, turn, pool)
            for k in np.flatnonzero(peaks >= least):
                whole, crop = int(wholes[k]), int(crops[k])
                if block_correlation(thumbnails, whole, crop, zoom, turn) >= BLOCK_CORRELATION:
                    yield whole, crop, int(distances[k]), round(float(peaks[k]), 4)


def _candidates(
    plain: NDArray[np.uint64],
    turned: NDArray[np.uint64],
    turn: int,
    same_zoom: bool,
    pool: ThreadPoolExecutor,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Index pairs of near hashes (N,) and (N,), with their Hamming distances; no pair twice."""
    limit = TURNED_DISTANCE if turn else UPRIGHT_DISTANCE
    # A turn that undoes itself compares (i, j) and (j, i) alike; the quarter turns, 5 and 6, undo each other.
    symmetric = same_zoom and turn not in (5, 6)
    if same_zoom and turn == 6:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)

    def near(start: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        first = start if symmetric else 0
        distance = np.bitwise_count(plain[start : start + _ROWS, None] ^ turned[None, first:])
        rows, columns = np.nonzero(distance <= limit)
        distances = distance[rows, columns]
        rows, columns = rows + start, columns + first
        keep = rows < columns if symmetric else rows != columns
        return rows[keep], columns[keep], distances[keep]

    parts = list(pool.map(near, range(0, len(plain), _ROWS)))
    rows, columns, distances = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, distances


def _hashes(thumbnails: NDArray[np.uint8], zoom: float) -> list[NDArray[np.uint64]]:
    """Eight hashes (N,) uint64, one a turn: the signs of the 63 lowest cosine coefficients of a 32x32 image.

    The sign, and not the usual comparison with the median, because a flip then only inverts the odd
    coefficients, and all eight turns follow from one transform.
    """
    size = _HASH_PX
    frequencies = np.arange(8)[:, None] * (2 * np.arange(size)[None, :] + 1) * np.pi / (2 * size)
    transform = (np.cos(frequencies) @ resampling(zoom, size)).astype(np.float32)
    coefficients = np.empty((len(thumbnails), 8, 8), np.float32)
    for start in range(0, len(thumbnails), _ROWS):
        part = thumbnails[start : start + _ROWS].astype(np.float32)
        coefficients[start : start + _ROWS] = transform @ part @ transform.T
    coefficients[:, 0, 0] = -1.0  # mean brightness says nothing
    odd = np.where(np.arange(8) % 2, -1, 1).astype(np.float32)
    hashes = []
    for turn in range(8):
        turned = coefficients.transpose(0, 2, 1) if turn & 4 else coefficients
        if turn & 2:
            turned = turned * odd[:, None]
        if turn & 1:
            turned = turned * odd[None, :]
        bits = np.packbits(turned.reshape(len(thumbnails), 64) > 0, axis=1)
        hashes.append(bits.view(np.uint64)[:, 0])
    return hashes
