"""One seed, many independent streams: every random draw is a function of what it is for, never of what ran before.

That is why a resumed training equals an uninterrupted one, with any number of loader processes.
"""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed from the run's seed, a purpose and counters (epoch, step, draw, rank)."""
    entropy = [seed, zlib.crc32(purpose.encode()), *counters]
    low, high = np.random.SeedSequence(entropy).generate_state(2)
    return (int(high) << 32 | int(low)) & (2**63 - 1)
