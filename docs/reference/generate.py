"""Write the reference pages that derive from the code: ``python docs/reference/generate.py``.

cli.md comes from the command line itself, sql.md from the parts in sql/, errors.md from
pgbalise.errors, doctor.md from the docstring of pgbalise.doctor, exchange-api.md from the
exchange's OpenAPI, and proxy-messages.md from the calls in the proxy's modules that refuse, count
or log something.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parents[1]
sys.path.insert(0, str(PROJECT))

import typer.main  # noqa: E402

import pgbalise.cli  # noqa: E402
import pgbalise.doctor  # noqa: E402
from pgbalise import errors  # noqa: E402
from pgbalise.exchange import server  # noqa: E402
from pgbalise.proxy.metrics import METRICS  # noqa: E402

NOTE = "<!-- Written by docs/reference/generate.py: change the code, then run it again. -->"

_ANSWERS = {
    "trace": "0 someone is accused, 1 no one is, 2 an error",
    "report verify": "0 genuine, and about every file given, 1 not, 2 an error",
    "case run": "0 someone is accused, 1 no one is, 2 an error",
    "case show": "0 done, 1 the tables contradict the ledger, 2 an error",
    "doctor": "0 nothing critical, 1 a critical finding, 2 an error",
    "registry current": "0 the newest revision, 1 an upgrade is due, 2 an error",
    "ledger verify": "0 no fault, 1 a fault, 2 an error",
    "alert test": "0 every sink took it, 1 one did not, 2 an error",
    "exchange check": "0 somebody's decoy, 1 nobody's, 2 an error",
    "exchange report": "0 somebody was told, 1 nobody, 2 an error",
    "exchange hits": "0 there are some, 1 none, 2 an error",
    "alert relay": "0 all is told, 1 some alert is still to be told, 2 an error",
    "proxy": "0 stopped in order, 1 a process could not start, 2 an error",
}
_EXIT = "0 done, 2 an error"

_CLI = """\
An error is one line on standard error. Connections follow libpq: `PG*` variables, service files,
`.pgpass`, or `--dsn`. No command takes a secret as an argument. `pgbalise --version` prints the
version; `--help` works after every command."""

_SQL = """\
The extension owns schema `balise`. Nothing in it is granted to PUBLIC. Members of `balise_admin`
and `balise_auditor` use it, and superusers ([roles](roles.md)); role `balise_owner` owns the marked
views and may read the secrets that they need; each recipient may execute `balise.refuse()` and
nothing else in it; members of `balise_tripwire` may execute `balise.check()`. `key_file` names a
file on the database server's machine, of mode 0600, that the server's own user can read;
`balise.trace` takes several, joined by colons.

Installed as plain SQL (`pgbalise init --sql-only`), schema `balise` has the same tables, and none
of the functions that are written in plpython3u."""

_ERRORS = """\
The command line prints message and hint in one line and exits with status 2. The SQL functions
give the hint as HINT. When PL/Python cannot import the library, SQLSTATE is 58P01. A marked view
refuses a session user who is not enrolled with 42501."""


_EXCHANGE = """\
What [the exchange](../explanation/exchange.md) between establishments speaks over HTTP: JSON in
UTF-8, version 1 of the protocol. Every call needs the header `Authorization: Bearer` with the
establishment's token. A body has at most 1 MiB. An error is a problem as RFC 9457 writes it
(`application/problem+json`); it never quotes what was sent. Binary values are in hexadecimal,
small letters; entries of a range in Base64. Limits are by member: 20 range queries a second
after the first 5,000, 5 publications after 600, 1 hit after 200, 5 other calls after 600."""


def _plain(docstring: str | None) -> str:
    """Return a docstring without its indentation, literals in Markdown's single backquotes."""
    return inspect.cleandoc(docstring or "").replace("``", "`")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with the words that name it."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


def command_line() -> list[tuple[tuple[str, ...], Any]]:
    """Return all commands of the command line."""
    return list(commands(typer.main.get_command(pgbalise.cli.app)))


def option_names(command: Any) -> set[str]:
    """Return every way to write an option of a command."""
    named = [p for p in command.params if p.param_type_name == "option"]
    return {name for p in named for name in (*p.opts, *p.secondary_opts)} | {"--help"}


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name).upper()
    text = name + ("..." if parameter.nargs == -1 else "")
    return text if parameter.required else f"[{text}]"


def _value(parameter: Any) -> str:
    if parameter.is_flag:
        return ""
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " " + "\\|".join(str(member.value) for member in kind)
    return " " + {Path: "FILE", int: "NUMBER", float: "NUMBER"}.get(kind, "TEXT")


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if getattr(parameter, "is_flag", False) or value in (None, ""):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def cli_page() -> str:
    """Return cli.md."""
    out = ["# Command line", NOTE, _plain(pgbalise.cli.__doc__).split("\n\n", 1)[1]]
    out.append(_CLI)
    for path, command in command_line():
        name = " ".join(("pgbalise", *path))
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        needed = [f"{p.opts[-1]} {_value(p).strip()}" for p in options if p.required]
        words = [name, "[OPTIONS]", *needed, *map(_argument, arguments)]
        out += [
            f"## {name}",
            inspect.cleandoc(command.help or ""),
            f"```text\n{' '.join(words)}\n```",
        ]
        described = [f"* `{_argument(p)}`: {p.help}" for p in arguments if p.help]
        if described:
            out.append("\n".join(described))
        rows = ["| option | meaning | default |", "|---|---|---|"]
        for p in options:
            names = ", ".join(f"`{n}`" for n in (*p.opts, *p.secondary_opts) if n != "--help")
            if not names:
                continue
            help_text = (p.help or "").strip()
            if p.envvar:
                help_text += f" Also from the variable `{p.envvar}`."
            rows.append(f"| {names}{_value(p)} | {help_text.strip()} | {_default(p)} |")
        if len(rows) > 2:
            out.append("\n".join(rows))
        out.append(f"Exit status: {_ANSWERS.get(' '.join(path), _EXIT)}.")
    return "\n\n".join(out) + "\n"


_TABLE = re.compile(r"^CREATE TABLE (balise\.\w+) \((.*?)^\)[^;\n]*;", re.MULTILINE | re.DOTALL)
_FUNCTION = re.compile(
    r"^CREATE OR REPLACE FUNCTION (balise\.\w+)\s*\(([^)]*?)\)\s*RETURNS"
    r" (TABLE \([^)]*\)|\w[\w ]*?)\s*(?:LANGUAGE|$)\s*(\w+)",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(
    r"^COMMENT ON (?:TABLE|FUNCTION) (balise\.\w+)(?:\([^)]*\))? IS\s+'((?:[^']|'')*)';",
    re.MULTILINE,
)


def sql_page() -> str:
    """Return sql.md."""
    parts = ("catalog.sql", "routines.sql", "python.sql.in")
    source = "".join((PROJECT / "sql" / part).read_text("utf-8") for part in parts)
    comments = {name: text.replace("''", "'") for name, text in _COMMENT.findall(source)}
    out = [
        "# SQL",
        NOTE,
        _SQL,
        "## Functions",
    ]
    for name, arguments, returns, language in _FUNCTION.findall(source):
        flat = re.sub(r"\s+", " ", arguments).strip()
        parts = [part.strip() for part in re.split(r",\s*(?![^()]*\))", flat)] if flat else []
        body = f"{name}(" + (")" if not parts else "\n    " + ",\n    ".join(parts) + "\n)")
        out.append(f"### {name}")
        out.append(f"{comments[name]}. Written in {language}.")
        out.append(f"```text\n{body} RETURNS {returns.strip()}\n```")
    out.append("## Tables")
    for name, body in _TABLE.findall(source):
        rows = [line.strip().rstrip(",") for line in body.strip().splitlines()]
        out += [f"### {name}", f"{comments[name]}.", "```text\n" + "\n".join(rows) + "\n```"]
    return "\n\n".join(out) + "\n"


def _tree(kind: type[errors.PgbaliseError]) -> Iterator[type[errors.PgbaliseError]]:
    yield kind
    for child in kind.__subclasses__():
        # whatever else was imported has its own
        if child.__module__ == errors.__name__:
            yield from _tree(child)


def errors_page() -> str:
    """Return errors.md."""
    tree, rest = _plain(errors.__doc__).split("::\n\n", 1)[1].split("\n\n", 1)
    out = [
        "# Errors",
        NOTE,
        "Everything pgbalise raises on purpose stands in one tree, in `pgbalise.errors`:",
        f"```text\n{inspect.cleandoc(tree)}\n```",
        rest,
        _ERRORS,
    ]
    rows = ["| class | code | meaning |", "|---|---|---|"]
    for kind in _tree(errors.PgbaliseError):
        said = inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
        rows.append(f"| `{kind.__name__}` | `{kind.code}` | {said} |")
    out.append("\n".join(rows))
    return "\n\n".join(out) + "\n"


def doctor_page() -> str:
    """Return doctor.md."""
    said = _plain(pgbalise.doctor.__doc__)
    intro, body = said.split("\n\n", 1)
    lines = body.splitlines()
    rules = [at for at, line in enumerate(lines) if line.startswith("====")]
    before = "\n".join(lines[: rules[0]]).strip()
    after = "\n".join(lines[rules[2] + 1 :]).strip()
    rows = ["| code | severity | what |", "|---|---|---|"]
    for line in lines[rules[1] + 1 : rules[2]]:
        code, severity, what = line.split(None, 2)
        rows.append(f"| {code} | {severity} | {what} |")
    parts = ["# Findings of the doctor", NOTE, intro, before, "\n".join(rows), after]
    return "\n\n".join(part for part in parts if part) + "\n"


_PROXY = """\
What [the proxy](proxy.md) says: to clients, to a monitoring system, and in its log. “…” stands for
what varies: names, numbers, addresses; never a value of the SQL."""

_REFUSALS = """\
An error of the server's own passes unchanged and is not listed. A refused statement leaves the
connection as any failed statement does. What ends one has severity FATAL; so has a message
that breaks the protocol, with 08P01."""

_REFUSING = {
    "Statements": (
        "pgbalise.rewrite.reading",
        "pgbalise.rewrite.editing",
        "pgbalise.proxy.gate",
        "pgbalise.wire.encodings",
        "pgbalise.wire.relay",
    ),
    "Connections": (
        "pgbalise.wire.startup",
        "pgbalise.wire.login",
        "pgbalise.wire.scram",
        "pgbalise.proxy.sessions",
        "pgbalise.proxy.worker",
    ),
}
_UNKNOWN_ENCODING = ("0A000", "set client_encoding to UTF8")
# which arguments are SQLSTATE, message and hint: a place, or what holds when it is left out
_SHAPES: dict[str, tuple[int | str, int, int | str]] = {
    "Refusal": (0, 1, 2),
    "error_response": (0, 1, 2),
    "fatal": (0, 1, 2),
    "refuse": ("42501", 0, 1),
    "_unreadable": (
        "0A000",
        0,
        "The proxy forwards only what it can read; rewrite the statement in plainer SQL.",
    ),
    "ProtocolViolation": ("08P01", 0, ""),
    "AuthenticationRefused": ("28P01", 0, ""),
    "_violation": ("08P01", 0, ""),
    "UnknownEncoding": (_UNKNOWN_ENCODING[0], 0, _UNKNOWN_ENCODING[1]),
}
_LEVELS = {"failure": "error", "_log": "info"}
_LOGGING = ("sessions", "worker", "supervisor", "background")


def _told(node: ast.expr, module: Any) -> str | None:
    """Return a text as it is told, "…" where it varies, None when nothing of it is known."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    if isinstance(node, ast.Name):
        value = getattr(module, node.id, None)
        return value if isinstance(value, str) else None
    if isinstance(node, ast.IfExp):
        return _told(node.body, module)
    return None


def _calls(name: str) -> Iterator[tuple[Any, str, ast.Call]]:
    module = importlib.import_module(name)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call):
            called = node.func
            word = getattr(called, "attr", None) or getattr(called, "id", "")
            yield module, word, node


def refusals() -> dict[str, list[tuple[str, str, str]]]:
    """Return what is refused: SQLSTATE, message and hint, each "…" where it varies."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for title, names in _REFUSING.items():
        told: set[tuple[str, str, str]] = set()
        for module, word, call in (one for name in names for one in _calls(name)):
            if word not in _SHAPES:
                continue
            given = {one.arg: one.value for one in call.keywords}
            texts = []
            for place, key in zip(_SHAPES[word], ("sqlstate", "message", "hint"), strict=True):
                node = given.get(key)
                if node is None and isinstance(place, int) and place < len(call.args):
                    node = call.args[place]
                if node is None:
                    texts.append(place if isinstance(place, str) else "")
                else:
                    texts.append(_told(node, module) or "…")
            if word == "refuse" and len(call.args) > 2:
                texts[0] = _told(call.args[2], module) or "…"
            # what is passed on as it came is told where it comes from
            if texts[1] not in ("", "…") and texts[0] != "…":
                told.add((texts[0], texts[1], texts[2]))
        found[title] = sorted(told)
    return found


def _events() -> list[tuple[str, str, str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for name in _LOGGING:
        for module, word, call in _calls(f"pgbalise.proxy.{name}"):
            levels = {"debug", "info", "warning", "error", *_LEVELS}
            event = _told(call.args[0], module) if call.args else None
            if word in levels and event:
                fields = {one.arg for one in call.keywords if one.arg}
                if word == "failure":
                    fields |= {"error", "hint", "place"}
                if word == "_log":
                    fields |= {"session", "client", "role"}
                found.setdefault((event, _LEVELS.get(word, word)), set()).update(fields)
    return sorted(
        (event, level, ", ".join(sorted(names))) for (event, level), names in found.items()
    )


def messages_page() -> str:
    """Return proxy-messages.md."""
    out = [
        "# Messages of the proxy",
        NOTE,
        _PROXY,
        "## Refusals",
        _REFUSALS,
    ]
    for title, rows in refusals().items():
        lines = ["| SQLSTATE | message | hint |", "|---|---|---|"]
        lines += [f"| {state} | {text} | {hint} |".replace("  ", " ") for state, text, hint in rows]
        out += [f"### {title}", "\n".join(lines)]
    lines = ["| metric | type | meaning |", "|---|---|---|"]
    for metric in METRICS.values():
        label = '{{{}="{}"}}'.format(*metric.label) if metric.label else ""
        kind = "gauge" if metric.gauge else "counter"
        lines.append(f"| `pgbalise_{metric.name}{label}` | {kind} | {metric.help} |")
    lines.append('| `pgbalise_build_info{version="…"}` | gauge | The version that runs. |')
    out += ["## Metrics", "\n".join(lines)]
    lines = ["| event | level | fields |", "|---|---|---|"]
    lines += [f"| `{event}` | {level} | {fields} |" for event, level, fields in _events()]
    out += [
        "## Log events",
        "Every event also has its time, level and `process`. Fields without a value are left out.",
        "\n".join(lines),
    ]
    return "\n\n".join(out) + "\n"


def _shape(schema: dict[str, Any]) -> str:
    """Return what a JSON schema says of a value, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_shape(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        most = f", at most {schema['maxItems']:,}" if "maxItems" in schema else ""
        return f"list of {_shape(schema['items'])}{most}"
    text = str(schema.get("format", schema.get("type", "anything")))
    if "pattern" in schema:
        text += f" `{schema['pattern']}`"
    if "maxLength" in schema:
        text += f", at most {schema['maxLength']} characters"
    if "minimum" in schema and "maximum" in schema:
        text += f", {schema['minimum']} to {schema['maximum']}"
    return text


def _described(schema: dict[str, Any]) -> str:
    inner = schema.get("items", {})
    return str(schema.get("description") or inner.get("description") or "")


def exchange_page() -> str:
    """Return exchange-api.md."""
    api = server.describe()
    out = ["# API of the exchange", NOTE, _EXCHANGE]
    for path, methods in api["paths"].items():
        for method, call in methods.items():
            out += [f"## {method.upper()} {path}", _plain(call["description"])]
            rows = ["| parameter | in | form | meaning |", "|---|---|---|---|"]
            for p in call.get("parameters", []):
                meaning = p.get("description", "")
                rows.append(f"| `{p['name']}` | {p['in']} | {_shape(p['schema'])} | {meaning} |")
            if len(rows) > 2:
                out.append("\n".join(rows))
            if "requestBody" in call:
                [content] = call["requestBody"]["content"].values()
                out.append(f"Body: {_shape(content['schema'])}")
            rows = ["| status | body | meaning |", "|---|---|---|"]
            for status, answer in sorted(call["responses"].items()):
                [content] = answer["content"].values()
                told = answer["description"].replace("Successful Response", "Done")
                rows.append(f"| {status} | {_shape(content['schema'])} | {told} |")
            out.append("\n".join(rows))
    out.append("## Bodies")
    for name, schema in sorted(api["components"]["schemas"].items()):
        if name in ("HTTPValidationError", "ValidationError"):
            continue
        rows = ["| member | form | required | meaning |", "|---|---|---|---|"]
        for member, inner in schema["properties"].items():
            needed = "yes" if member in schema.get("required", ()) else "no"
            rows.append(f"| `{member}` | {_shape(inner)} | {needed} | {_described(inner)} |")
        out += [f"### {name}", _plain(schema["description"]), "\n".join(rows)]
    return "\n\n".join(out) + "\n"


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {
        "cli.md": cli_page(),
        "sql.md": sql_page(),
        "errors.md": errors_page(),
        "doctor.md": doctor_page(),
        "proxy-messages.md": messages_page(),
        "exchange-api.md": exchange_page(),
    }


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text, "utf-8")
