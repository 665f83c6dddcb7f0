"""The watch at work: across restarts, with a desk that fails, and for those who must refuse."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.limits import Limits, parse_limits
from pgbalise.lookout import REFUSED, STATE, Lookout, RefusedRecipients, past_from_ledger
from pgbalise.registry.store import Draft, append, open_registry, upgrade
from pgbalise.watch import Past

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def taken(name: str, rows: int, recipient: str = "anna", at: datetime = NOW) -> list[Any]:
    common = {"at": stamp(at), "extract": hashlib.sha256(name.encode()).hexdigest()[:32]}
    touched = {"relations": [{"relation": "h.patient"}], "system": "7", "client": "local"}
    begun = {"type": "intent", "recipient": recipient, "database": "dpi"}
    return [common | begun | touched, common | {"type": "outcome", "rows": rows}]


class Table:
    """A desk that keeps what it is given, unless it is shut."""

    def __init__(self) -> None:
        self.alerts: list[Mapping[str, Any]] = []
        self.shut = False

    def submit(self, alerts: Iterable[Mapping[str, Any]]) -> None:
        if self.shut:
            raise EnvironmentProblem("the disk is full")
        self.alerts += alerts


def test_sums_survive_a_restart(tmp_path: Path) -> None:
    desk = Table()
    limits = Limits(rows_per_day=100)
    Lookout(limits, tmp_path, desk).observe(taken("a", 100))
    assert desk.alerts == []
    Lookout(limits, tmp_path, desk).observe([*taken("a", 100), *taken("b", 1)])
    assert [alert["detail"]["rows"] for alert in desk.alerts] == [101]
    Lookout(limits, tmp_path, desk).observe(taken("c", 1))
    assert len(desk.alerts) == 1


def test_an_alert_is_not_lost_when_the_desk_cannot_keep_it(tmp_path: Path) -> None:
    desk = Table()
    lookout = Lookout(Limits(rows_per_day=100), tmp_path, desk)
    desk.shut = True
    for _ in range(2):
        with pytest.raises(EnvironmentProblem):
            lookout.observe(taken("a", 101))
    lookout.save()
    assert not (tmp_path / STATE).exists(), "else a restart would think that it was told"
    desk.shut = False
    lookout.observe(taken("a", 101))
    assert len(desk.alerts) == 1


def test_a_state_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"version": 9}'):
        (tmp_path / STATE).write_text(content)
        with pytest.raises(InvalidInput):
            Lookout(Limits(), tmp_path, Table())


def test_workers_learn_who_is_refused_and_until_when(tmp_path: Path) -> None:
    limits = parse_limits({"rows_per_day": 100, "on_limit": "refuse"})
    assert RefusedRecipients(tmp_path).until("anna", NOW) is None
    lookout = Lookout(limits, tmp_path, Table(), clock=lambda: NOW)
    lookout.observe([*taken("a", 101), *taken("b", 100, "bob")])
    asked = RefusedRecipients(tmp_path)
    midnight = NOW + timedelta(hours=12)
    assert asked.until("anna", NOW) == midnight
    assert asked.until("bob", NOW) is None
    assert asked.until("anna", midnight) is None, "though nobody has written the file again"
    assert (tmp_path / REFUSED).stat().st_mode & 0o777 == 0o600
    lookout.use(Limits())
    assert asked.until("anna", NOW) == midnight, "looks once a second"
    time.sleep(1.01)
    assert asked.until("anna", NOW) is None
    (tmp_path / REFUSED).write_text("{")
    with pytest.raises(EnvironmentProblem):
        RefusedRecipients(tmp_path).until("anna", NOW)


def test_the_past_is_taken_from_the_ledger(cluster: Any, empty_db: psycopg.Connection[Any]) -> None:
    limits = parse_limits({"zone": "Europe/Paris"})

    def drafts(name: str, recipient: str, at: datetime, rows: int | None) -> list[Draft]:
        begun = {
            "origin": f"extract:{name}",
            "extract": name,
            "recipient": recipient,
            "database": "dpi",
            "relations": ["h.patient", f"h.{recipient}"],
            "started_at": stamp(at),
        }
        ended = {"origin": f"outcome:{name}", "extract": name, "rows": rows, "ended_at": stamp(at)}
        return [Draft("extract", begun), *([Draft("outcome", ended)] if rows is not None else [])]

    now = datetime(2026, 3, 4, 12, tzinfo=UTC)
    late = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)  # in Paris, the third
    with open_registry(cluster.dsn(empty_db.info.dbname)) as registry:
        upgrade(registry)
        assert past_from_ledger(registry, limits, now) == {}
        with registry.begin():
            found = [
                *drafts("1", "anna", now - timedelta(days=200), 7),
                *drafts("2", "anna", late, 40),
                *drafts("3", "anna", now - timedelta(days=1), 2),
                *drafts("4", "bob", late, None),
                Draft("enrolment", {"recipient": "carol"}),
            ]
            append(registry, found, now)
        assert past_from_ledger(registry, limits, now) == {
            "anna": Past("2025-08-16", {"2026-03-03": 42}, {"dpi:h.patient", "dpi:h.anna"}),
            "bob": Past("2026-03-03", {}, {"dpi:h.patient", "dpi:h.bob"}),
        }
