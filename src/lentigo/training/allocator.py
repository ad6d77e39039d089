"""Freed memory is kept for the next step instead of being handed back to the system.

glibc maps every large block anew and gives it back when freed, so a training on a CPU takes page faults for all its
activations in every step. `python benchmarks/training.py` measures the loop with and without this.
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3), from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell this process's allocator; true where that worked (Linux with glibc), without effect elsewhere."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, _NEVER))
