"""Whoever met a decoy in ``balise.check()`` becomes an alert, once told and never forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from pgbalise.errors import PgbaliseError
from pgbalise.session import PsycopgSession, connect, problems
from pgbalise.watch import tripwire_alert

_AT_ONCE: Final = 500
_SECONDS: Final = 1.0
_PATIENCE: Final = 300.0
"""Seconds until a database that cannot be asked is asked again, at most."""

_EVENTS: Final = """
SELECT event_id, to_char(timezone('UTC', at), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
       role_name::text, coalesce(host(client), 'local'), application_name, decoys, kinds
  FROM balise.tripwires($1::integer)
"""

Submit = Callable[[Iterable[Mapping[str, Any]]], None]


def relay(session: PsycopgSession, submit: Submit) -> int:
    """Hand the events that nobody was told of to ``submit``, as alerts; return how many.

    They count as told once ``submit`` has returned: when it raises, or the process dies, they come
    again with the same ids. Several may relay from one database: none is given what another holds.
    On a standby there is nothing to relay. Needs EXECUTE on balise.tripwires, as balise_proxy has
    it; raise DatabaseProblem.
    """
    with problems(), session.connection.transaction():
        [(standby,)] = session.fetch("SELECT pg_is_in_recovery()")
        rows = [] if standby else session.fetch(_EVENTS, _AT_ONCE)
        if not rows:
            return 0
        [(database, system)] = session.fetch(
            "SELECT current_database()::text, system_identifier::text FROM pg_control_system()"
        )
        submit(
            [
                tripwire_alert(
                    datetime.fromisoformat(at),
                    event=event,
                    role=role,
                    database=database,
                    system=system,
                    client=client,
                    application=application,
                    decoys=decoys,
                    kinds=kinds,
                )
                for event, at, role, client, application, decoys, kinds in rows
            ]
        )
        session.fetch("SELECT balise.tripwires_told($1::bigint[])", [row[0] for row in rows])
        return len(rows)


def follow(
    dsn: str, submit: Submit, complain: Callable[[PgbaliseError], None], stop: threading.Event
) -> None:
    """Relay until told to stop; what keeps it from that is told ``complain``, and tried again."""
    pause = _SECONDS
    while not stop.is_set():
        try:
            with connect(dsn) as session:
                while not stop.is_set():
                    if not relay(session, submit):
                        stop.wait(_SECONDS)
                    pause = _SECONDS
        except PgbaliseError as problem:
            complain(problem)
            stop.wait(pause)
            pause = min(2 * pause, _PATIENCE)
