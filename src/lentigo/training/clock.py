"""Time spent in a training, over all its sessions."""

from __future__ import annotations

import time


class Clock:
    """Time spent in a training, over all its sessions."""

    def __init__(self, carried_s: float, started_s: float, limit_s: float) -> None:
        self._carried_s, self._started_s, self._limit_s = carried_s, started_s, limit_s
        self._lap_s = self._saved_s = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run's first step."""
        return self._carried_s + time.perf_counter() - self._started_s

    @property
    def over(self) -> bool:
        """Whether the time limit (0: none) has passed."""
        return 0 < self._limit_s < self.elapsed_s

    @property
    def since_save_s(self) -> float:
        """Seconds since the last saved state."""
        return time.perf_counter() - self._saved_s

    def saved(self) -> None:
        """Note that the state is being saved now."""
        self._saved_s = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        last, self._lap_s = self._lap_s, time.perf_counter()
        return self._lap_s - last
