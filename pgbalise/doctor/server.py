"""The server around the data: event triggers, versions, the library, the clock, connections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pgbalise import __version__
from pgbalise.doctor.findings import Finding, Severity
from pgbalise.doctor.scene import Scene
from pgbalise.install import found

if TYPE_CHECKING:
    from pgbalise.session import Session

_TRIGGERS: Final = {
    "balise_keep_in_step": (
        "CREATE EVENT TRIGGER balise_keep_in_step ON ddl_command_end WHEN TAG IN ('ALTER TABLE',"
        " 'ALTER SCHEMA', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE')"
        " EXECUTE FUNCTION balise.keep_in_step()"
    ),
    "balise_refuse_drop": (
        "CREATE EVENT TRIGGER balise_refuse_drop ON sql_drop EXECUTE FUNCTION balise.keep_in_step()"
    ),
}


def event_triggers(session: Session, scene: Scene) -> Iterator[Finding]:
    """D41: event triggers, which keep the views in step with DDL."""
    del scene
    _, extension = found(session)
    severity = Severity.WARNING if extension else Severity.NOTICE
    states = dict(
        session.fetch(
            "SELECT t.evtname::text, t.evtenabled IN ('O', 'A')"
            " AND n.nspname = 'balise' AND p.proname = 'keep_in_step'"
            " FROM pg_catalog.pg_event_trigger AS t"
            " JOIN pg_catalog.pg_proc AS p ON p.oid = t.evtfoid"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace"
            " WHERE t.evtname::text = ANY ($1::text[])",
            list(_TRIGGERS),
        )
    )
    for name, create in _TRIGGERS.items():
        if name not in states:
            text = f"event trigger {name} is missing: nothing holds DDL to what the policy rests on"
            yield Finding("D41", severity, "", name, text, create)
        elif not states[name]:
            text = f"event trigger {name} is disabled, or calls another function"
            fix = f"ALTER EVENT TRIGGER {name} ENABLE"
            yield Finding("D41", severity, "", name, text, fix)


def versions(session: Session, scene: Scene) -> Iterator[Finding]:
    """D43 and D44: catalog, library and what PL/Python imports."""
    version, extension = found(session)
    if not extension:
        return
    for (newest,) in session.fetch(
        "SELECT default_version::text FROM pg_catalog.pg_available_extensions"
        " WHERE name = 'pgbalise' AND default_version <> $1::text",
        version,
    ):
        text = f"the server has version {newest} of the extension, this database {version}"
        fix = "ALTER EXTENSION pgbalise UPDATE"
        yield Finding("D43", Severity.WARNING, "", "pgbalise", text, fix)
    [(says,)] = session.fetch("SELECT balise.version()")
    if says != version:
        text = f"balise.version() says {says}, the extension's version is {version}"
        yield Finding("D43", Severity.WARNING, "", "balise.version()", text)
    allowed = session.fetch(
        "SELECT has_function_privilege('balise.load_library()', 'EXECUTE')"
        " AND has_function_privilege('balise.python_path()', 'EXECUTE')"
    )
    if allowed == [(True,)]:
        yield from _library(session)
    else:
        scene.not_checked.append(
            "the library that PL/Python imports: balise.load_library() is denied"
        )
    if session.fetch("SELECT current_setting('is_superuser')::bool") == [(True,)]:
        yield from _folders(session)
    else:
        scene.not_checked.append(
            "who may write to the folders of balise.python_path(), which takes a superuser"
        )


# A DO block hands its answer over in a setting: an error in it aborts no transaction.
_LOAD: Final = """
DO $do$
BEGIN
    PERFORM set_config('balise_doctor.answer', 'version ' || balise.load_library(), false);
EXCEPTION WHEN OTHERS THEN
    PERFORM set_config('balise_doctor.answer', 'error ' || sqlerrm, false);
END
$do$
"""

_LOOK: Final = """
DO LANGUAGE plpython3u $do$
import glob, json, os, stat
said = []
folders = plpy.execute("SELECT balise.python_path() AS path")[0]["path"].split(":")
for folder in folders:
    if not os.path.isdir(folder):
        said.append(["missing", folder])
        continue
    inside = [folder, os.path.join(folder, "pgbalise")]
    inside += glob.glob(os.path.join(glob.escape(inside[1]), "**"), recursive=True)
    for path in dict.fromkeys(inside):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            said.append(["others", path])
        elif path in (folder, inside[1]) and os.access(path, os.W_OK):
            said.append(["server", path])
plpy.execute(plpy.prepare("SELECT set_config('balise_doctor.answer', $1, false)", ["text"]),
             [json.dumps(said)])
$do$
"""


def _answer(session: Session, block: str) -> str:
    session.fetch(block)
    [(answer,)] = session.fetch("SELECT current_setting('balise_doctor.answer')")
    return str(answer)


def _library(session: Session) -> Iterator[Finding]:
    state, _, text = _answer(session, _LOAD).partition(" ")
    command = "make -C sql install PYTHON=/path/to/venv/bin/python"
    if state == "error":
        message = f"the library cannot be imported by the server: {' '.join(text.split())}"
        yield Finding(
            "D43", Severity.WARNING, "", "balise.load_library()", message, command=command
        )
    elif text != __version__:
        message = f"the server imports version {text} of the library, this one is {__version__}"
        yield Finding(
            "D43", Severity.WARNING, "", "balise.load_library()", message, command=command
        )


def _folders(session: Session) -> Iterator[Finding]:
    from shlex import quote

    for state, path in json.loads(_answer(session, _LOOK)):
        if state == "missing":
            text = f"{path}, where PL/Python looks for the library, does not exist"
            yield Finding("D44", Severity.WARNING, "", path, text)
        elif state == "others":
            text = (
                f"{path} may be written by everyone on the server: what the server runs is theirs"
            )
            command = f"chmod o-w {quote(path)}"
            yield Finding("D44", Severity.CRITICAL, "", path, text, command=command)
        else:
            text = f"{path} may be written by the server's own user: let root own it"
            command = f"chown -R root {quote(path)}"
            yield Finding("D44", Severity.NOTICE, "", path, text, command=command)


SKEW: Final = 5.0
"""Seconds by which the server's clock may differ from the one given."""


def clock(session: Session, now: datetime) -> Iterator[Finding]:
    """D45: a server's clock that is wrong, or before what was written by it."""
    [(seconds,)] = session.fetch("SELECT extract(epoch FROM clock_timestamp())::float8")
    server = datetime.fromtimestamp(seconds, UTC)
    ahead = (server - now).total_seconds()
    if abs(ahead) > SKEW:
        which = "ahead of" if ahead > 0 else "behind"
        text = (
            f"the server's clock is {abs(ahead):.0f} s {which} this machine's: the times of"
            " enrolment and of epochs rest on it"
        )
        yield Finding("D45", Severity.WARNING, "", "clock_timestamp()", text)
    for what, when in session.fetch(
        "SELECT t.what, t.latest::text FROM ("
        " SELECT 'a recipient was enrolled or revoked' AS what,"
        " max(greatest(enrolled_at, revoked_at)) AS latest FROM balise.recipient"
        " UNION ALL SELECT 'an epoch was opened', max(opened_at) FROM balise.epoch"
        " UNION ALL SELECT 'a commitment was made', max(made_at) FROM balise.commitment"
        " UNION ALL SELECT 'a policy was applied', max(applied_at) FROM balise.policy) AS t"
        " WHERE t.latest > clock_timestamp()"
    ):
        text = f"the server's clock is earlier than when {what} ({when})"
        yield Finding("D45", Severity.WARNING, "", "clock_timestamp()", text)


def connections(session: Session, scene: Scene) -> Iterator[Finding]:
    """D46: how a recipient may be impersonated or overheard on its way in."""
    settings: dict[str, Any] = dict(
        session.fetch(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN"
            " ('ssl', 'listen_addresses', 'unix_socket_permissions')"
        )
    )
    network = settings.get("listen_addresses") != ""
    if network and settings.get("ssl") == "off":
        text = "ssl is off: rows and passwords travel in the clear"
        yield Finding("D46", Severity.WARNING, "", "ssl", text)
    if session.fetch(
        "SELECT has_function_privilege(p.oid, 'EXECUTE')"
        " AND has_table_privilege('pg_catalog.pg_hba_file_rules', 'SELECT')"
        " FROM pg_catalog.pg_proc AS p WHERE p.proname = 'pg_hba_file_rules'"
    ) != [(True,)]:
        scene.not_checked.append("pg_hba.conf: pg_hba_file_rules takes a superuser")
        return
    rows = session.fetch(
        "SELECT line_number, type, auth_method, database, user_name"
        " FROM pg_catalog.pg_hba_file_rules WHERE error IS NULL ORDER BY line_number"
    )
    everyone = {group for role in scene.roles for group in scene.reach[role].privileges}
    for line, kind, method, databases, users in rows:
        named = {user.lstrip("+") for user in users}
        here = {"all", "sameuser", "samerole", "samegroup", scene.database} & set(databases)
        # a name that begins with a slash is a regular expression, from 16
        if not here or not ("all" in users or named & everyone or any("/" in u[:1] for u in users)):
            continue
        if kind == "local":
            private = settings.get("unix_socket_permissions") in ("0700", "0770")
            if method == "trust" and not private:
                text = f"pg_hba.conf line {line}: trust lets everyone on the server's machine in"
                yield Finding("D46", Severity.WARNING, "", f"pg_hba.conf:{line}", text)
        elif network:
            if method == "trust":
                text = f"pg_hba.conf line {line}: trust lets everyone in as any recipient"
                yield Finding("D46", Severity.WARNING, "", f"pg_hba.conf:{line}", text)
            elif method in ("password", "md5") and kind != "hostssl":
                text = f"pg_hba.conf line {line}: {method} over a connection that TLS need not hide"
                yield Finding("D46", Severity.WARNING, "", f"pg_hba.conf:{line}", text)
