"""Whether an enrolled role can still reach what is protected, by any path the catalog shows.

The database's privileges are the wall: a role that can read a base relation, a secret or another
recipient's decoys needs no marked view. ``examine`` reads pg_catalog and schema balise, and changes
nothing (but its own session's search_path). It runs on a hot standby too. Run it as a superuser or
as the catalog's owner; what the session's role may not see is listed as not checked.

======  ========  ==================================================================================
code    severity  what
======  ========  ==================================================================================
D01     critical  superuser, or can become one
D02     warning   BYPASSRLS: row security does not bind it
D03     critical  REPLICATION: it can copy the whole cluster
D04     critical  CREATEROLE: before PostgreSQL 16 it can grant itself any role but a superuser
D05     critical  a predefined role that reads everything, or files, or runs programs
D06     critical  can act as the owner of a protected relation
D07     warning   can act as the owner of its schema, or of the database
D08     critical  SELECT on a protected relation
D09     critical  SELECT on columns of a protected relation
D10     mixed     may write to it: TRIGGER critical, REFERENCES notice, the others warning
D11     critical  another view or materialised view shows it, with its owner's rights
D12     mixed     a SECURITY DEFINER function whose owner can read it; critical if it names it
D13     critical  secrets and catalog in schema balise (reading what is not secret: warning)
D14     critical  decoys in schema balise_decoy
D15     critical  can act as the owner of the marked views
D16     warning   CREATE in a schema on the view owner's search path or of marked views; owns them
D17     notice    is a member of, or has as a member, another role by which views are reachable
D18     critical  an untrusted language was declared trusted, and it may use it
D19     warning   may call a function written in an untrusted language
D20     critical  may call a server function that reads or writes files
D21     mixed     dblink: dblink_connect_u critical, the others warning
D22     mixed     foreign servers and tables; a mapping to who reads this database critical
D23     notice    is enrolled, but there is no such role
D24     warning   a protected relation or marked view is missing, or its view has another owner
D25     warning   future relations in a protected schema will be readable by it
D26     critical  is a member of a role of pgbalise's (of balise_tripwire: warning)
D27     warning   a publication sends a protected relation, or pgbalise's own, to subscribers
D28     warning   a logical replication slot keeps the changes of this database
D29     warning   a trigger or rule hands rows of a protected relation on; readable: critical
D30     mixed     may call functions that read the write-ahead log (critical), locks or sizes
D31     warning   track_counts is on for it: its counters tell decoys (notice without decoys)
D32     mixed     may set a superuser's parameter; ALTER SYSTEM critical
D33     warning   may read large objects, which no view marks
D34     notice    CREATE on the database
D35     critical  a marked view is not as it was written
D36     warning   something else stands among the marked views, or their schema is not pgbalise's
D37     notice    marked views not granted to a recipient, or to others (revoked: warning)
D38     warning   words, secrets or commitments missing; a word of a revoked recipient critical
D39     warning   marked views do not show all columns; columns newer than the policy: notice
D40     warning   a revoked recipient's role still has one of the critical paths above
D41     warning   an event trigger is missing or disabled (without the extension: notice)
D42     warning   the policy in force no longer fits the columns; a draft never applied: notice
D43     warning   versions of catalog, extension and the server's library differ
D44     mixed     folders of the server's library: written by everyone critical, missing warning
D45     warning   the server's clock differs from this machine's, or runs before what it wrote
D46     warning   ssl off, or pg_hba.conf lets a recipient in without a safe password or TLS
D47     mixed     the key file: readable by others critical, exchangeable or another key warning
D48     warning   may read a materialised view that keeps the marks of another recipient
D49     warning   decoys share their key with a row, or will: the sequence has yet to give it
D50     notice    it has fewer decoys than the policy wants
D51     notice    rows of decoys of who is revoked, or no recipient of class secondary
D52     warning   may read a relation without decoys that refers to one that has them
======  ========  ==================================================================================

"Protected relation" includes its partitions, and the tables it inherits from or that inherit from
it. A grant counts when the role has it itself, through PUBLIC, or through a role that it can
inherit from or SET ROLE to, or (from PostgreSQL 16) may give itself by ADMIN OPTION. Without USAGE
on the schema a grant on a relation is a warning only.

A finding's ``mend`` is SQL, ready to run as a superuser or as the owner of what it names; its
``command`` is for the shell. Either may be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pgbalise.doctor import decoys, keys, own, relations, roles, routes, server
from pgbalise.doctor.findings import Finding, Report, Severity
from pgbalise.doctor.relations import showing_views
from pgbalise.doctor.scene import survey
from pgbalise.install import installed

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pgbalise.session import Session

__all__ = ["Finding", "Report", "Severity", "examine", "showing_views"]

_OF_ROLES = (
    roles.attributes,
    roles.predefined,
    roles.ownership,
    roles.members,
    roles.on_database,
    roles.parameters,
    roles.counters,
    relations.on_protected,
    relations.views,
    relations.defaults,
    relations.large_objects,
    routes.functions,
    routes.languages,
    routes.foreign,
    own.secrets,
    own.places,
)
_OF_THE_DATABASE = (
    relations.handlers,
    relations.replication,
    own.marked_views,
    own.handed_out,
    own.catalog,
    own.steps,
    own.policies,
    decoys.decoys,
    server.event_triggers,
    server.versions,
    server.connections,
)
_OF_REVOKED = (
    roles.attributes,
    roles.predefined,
    roles.ownership,
    relations.on_protected,
    relations.views,
    routes.functions,
    own.secrets,
)


def examine(session: Session, *, now: datetime, key_file: Path | None = None) -> Report:
    """Return every open path of every enrolled role, and what else is not as it should be.

    ``now`` is this machine's time, with a time zone, to hold the server's against. ``key_file``
    is the master key's, looked at when given. Raise DatabaseProblem when the database has no
    catalog of this library's version.
    """
    installed(session)
    found = list(server.clock(session, now))
    # no one's functions may stand in for the server's
    session.fetch("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)")
    enrolled, revoked = survey(session)
    found += roles.missing_roles(session)
    if enrolled.roles:
        for examination in _OF_ROLES:
            found += examination(session, enrolled)
    for examination in _OF_THE_DATABASE:
        found += examination(session, enrolled)
    if revoked.roles:
        for examination in _OF_REVOKED:
            found += _of_revoked(examination(session, revoked))
    if key_file is not None:
        found += keys.key_file(session, enrolled, key_file)
    rank = {severity: at for at, severity in enumerate(Severity)}
    [(recipients,)] = session.fetch(
        "SELECT count(*) FROM balise.recipient WHERE revoked_at IS NULL"
    )
    return Report(
        sorted(
            _gathered(found, enrolled.roles),
            key=lambda f: (rank[f.severity], f.code, f.role, f.object, f.message),
        ),
        sorted(set(enrolled.not_checked)),
        recipients,
    )


def _of_revoked(findings: Iterable[Finding]) -> Iterable[Finding]:
    for one in findings:
        # what is open to everyone is no remnant
        if one.severity is Severity.CRITICAL and "PUBLIC" not in one.message:
            text = f"revoked recipient: {one.message} ({one.code})"
            yield replace(one, code="D40", severity=Severity.WARNING, message=text)


def _gathered(found: Sequence[Finding], names: Sequence[str]) -> Sequence[Finding]:
    """Say once what is open to all recipients alike and closed by the same statement."""
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for finding in dict.fromkeys(found):
        what = (finding.code, finding.severity, finding.object, finding.mend, finding.command)
        alike.setdefault(what, []).append(finding)
    out: list[Finding] = []
    for group in alike.values():
        if len(names) > 1 and {finding.role for finding in group} == set(names):
            first = group[0]
            message = first.message.replace(f"role {first.role}", "every recipient", 1)
            out.append(replace(first, role="", message=message))
        else:
            out += group
    return out
