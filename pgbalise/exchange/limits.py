"""How often a member may call: token buckets, pure. Time is an argument, seconds that only grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 10_000
"""Callers remembered; beyond, those whose buckets are full again are forgotten."""


@dataclass(frozen=True)
class Limit:
    """``burst`` calls at once, and ``per_second`` more for each second that passes."""

    per_second: float
    burst: int


@dataclass(frozen=True)
class Limits:
    """What one member may do."""

    lookups: Limit = Limit(20, 5000)
    """Range queries."""
    changes: Limit = Limit(5, 600)
    """Publications."""
    reports: Limit = Limit(1, 200)
    """Hits told."""
    reads: Limit = Limit(5, 600)
    """All other calls."""
    beacons: int = 1_000_000
    """Beacons that one member may have."""


@dataclass
class Buckets:
    """The buckets of one limit, by caller."""

    limit: Limit
    _levels: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Calls left, and when that was so."""

    def take(self, caller: str, now: float) -> float:
        """Count a call; return 0, or when it is one too many, the seconds until it may come."""
        left = self._left(caller, now)
        if left < 1:
            return (1 - left) / self.limit.per_second
        self._levels[caller] = (left - 1, now)
        if len(self._levels) > _KEPT:
            self._forget(now)
        return 0.0

    def _left(self, caller: str, now: float) -> float:
        left, then = self._levels.get(caller, (float(self.limit.burst), now))
        return min(float(self.limit.burst), left + (now - then) * self.limit.per_second)

    def _forget(self, now: float) -> None:
        waiting = [name for name in self._levels if self._left(name, now) < self.limit.burst]
        # when all are still waiting, the oldest go: memory is bounded
        self._levels = {name: self._levels[name] for name in waiting[-_KEPT // 2 :]}
