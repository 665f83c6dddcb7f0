"""What the keeper does beside the workers: delivers the ledger, watches it, tells of alerts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pgbalise.alert_text import sentence
from pgbalise.alerts import AlertDesk, senders
from pgbalise.errors import DatabaseProblem, PgbaliseError
from pgbalise.limits import Limits, parse_limits
from pgbalise.lookout import STATE, Lookout, past_from_ledger
from pgbalise.proxy.courier import Courier
from pgbalise.proxy.metrics import Name as Count
from pgbalise.registry.store import open_registry
from pgbalise.sinks import parse_sinks
from pgbalise.tripwires import follow
from pgbalise.watch import Past

if TYPE_CHECKING:
    from pgbalise.proxy.config import Config
    from pgbalise.proxy.supervisor import WorkerContext

_SECONDS = 1.0


class _LoggedDesk:
    """The desk, and a line in the log for each alert: with no sink at all, it is still told."""

    def __init__(self, desk: AlertDesk, context: WorkerContext) -> None:
        self._desk = desk
        self._context = context

    def submit(self, alerts: Iterable[Mapping[str, Any]]) -> None:
        """Take alerts to be told."""
        alerts = list(alerts)
        self._desk.submit(alerts)
        for alert in alerts:
            self._context.counters.add(Count.ALERTS)
            self._context.log.warning(
                "alert",
                kind=alert.get("kind"),
                role=alert.get("recipient"),
                database=alert.get("database"),
                alert=alert.get("alert"),
                reason=sentence(alert),
            )


def tasks(context: WorkerContext) -> Sequence[Callable[[threading.Event], None]]:
    """Return the keeper's tasks."""
    config = context.config
    limits = parse_limits(config.watch)
    # beside the spool, since what was not told yet must outlast the machine's next start
    alerts = config.spool / "alerts"
    desk = AlertDesk(alerts, senders(parse_sinks(config.alerts)), config.registry)
    lookout = Lookout(limits, config.spool, _LoggedDesk(desk, context), _past(context, limits))
    courier = Courier(config.spool, config.registry, observe=lookout.observe)

    def deliver(stop: threading.Event) -> None:
        try:
            courier.run(stop)
        finally:
            lookout.save()

    def figures(stop: threading.Event) -> None:
        counters, before = context.counters, courier.figures()
        while not stop.wait(_SECONDS):
            found = courier.figures()
            counters.add(Count.RECORDS_DELIVERED, found.delivered - before.delivered)
            counters.add(Count.RECORDS_SET_ASIDE, found.damaged - before.damaged)
            if found.error is not None and found.error != before.error:
                context.log.warning("delivery", error=found.error)
            if found.observe_error is not None and found.observe_error != before.observe_error:
                context.log.warning("watch", error=found.observe_error)
            before = found
            counters.set(Count.SPOOL_BYTES_WAITING, found.waiting_bytes)
            # without a registry nothing is late
            age = int(found.oldest_seconds) if config.registry is not None else 0
            counters.set(Count.OLDEST_UNDELIVERED_SECONDS, age)
            counters.set(Count.ALERTS_WAITING, desk.waiting())

    def follow_tripwires(database: str, stop: threading.Event) -> None:
        told = _LoggedDesk(desk, context)

        def complain(problem: PgbaliseError) -> None:
            context.log.failure("tripwires not read", problem, database=database)

        follow(config.own_dsn(database), told.submit, complain, stop)

    relays = [partial(follow_tripwires, database) for database in config.tripwires.databases]
    return (deliver, desk.run, figures, *relays)


def check_watch(config: Config) -> None:
    """Raise InvalidInput unless [watch] and [alerts] can be used."""
    parse_limits(config.watch)
    parse_sinks(config.alerts)


def _past(context: WorkerContext, limits: Limits) -> dict[str, Past]:
    """Return the recipients' past from the ledger, when this machine has none of its own."""
    config = context.config
    if config.registry is None or (config.spool / STATE).exists():
        return {}
    try:
        with open_registry(config.registry) as registry:
            return past_from_ledger(registry, limits, datetime.now(UTC))
    except DatabaseProblem as problem:
        context.log.failure("the recipients' past is not known", problem)
        return {}
