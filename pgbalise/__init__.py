"""Beacons on health data: marks what PostgreSQL returns, per recipient, and traces leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgbalise.frames import mark

__version__ = "0.2.0"
__all__ = ["__version__", "mark"]


def __getattr__(name: str) -> Any:
    """Load ``mark`` on first use, so that importing pgbalise does not need pyarrow."""
    if name == "mark":
        from pgbalise.frames import mark

        return mark
    raise AttributeError(f"module 'pgbalise' has no attribute {name!r}")
