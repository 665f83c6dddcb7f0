"""What the keeper does beside the workers: the ledger's delivery."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pgbalise.proxy.courier import Courier
from pgbalise.proxy.metrics import Name as Count

if TYPE_CHECKING:
    from pgbalise.proxy.supervisor import WorkerContext

_SECONDS = 1.0


def tasks(context: WorkerContext) -> Sequence[Callable[[threading.Event], None]]:
    """Return the keeper's tasks."""
    courier = Courier(context.config.spool, context.config.registry)

    def figures(stop: threading.Event) -> None:
        while not stop.wait(_SECONDS):
            found = courier.figures()
            counters = context.counters
            counters.set(Count.RECORDS_DELIVERED, found.delivered)
            counters.set(Count.SPOOL_BYTES_WAITING, found.waiting_bytes)
            counters.set(Count.OLDEST_UNDELIVERED_SECONDS, int(found.oldest_seconds))

    return (courier.run, figures)
