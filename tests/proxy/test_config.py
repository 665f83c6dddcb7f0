"""The proxy's configuration: defaults, what each key takes, and what is refused with which hint."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.proxy.config import Address, AuthenticationMode, Config, TlsMode, parse_config

EXAMPLE = (Path(__file__).parents[2] / "docs" / "reference" / "proxy.toml").read_text("utf-8")
TLS = '[tls]\ncertificate = "/c"\nkey = "/k"\n'


def refusal(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_config(text)
    return caught.value


def test_example_is_the_defaults() -> None:
    assert parse_config(EXAMPLE) == parse_config("")


def test_example_names_every_key_with_a_value_it_takes() -> None:
    whole = re.sub(r"^# (?=\w+ = |\[)", "", EXAMPLE, flags=re.MULTILINE)
    config = parse_config(whole.replace('"/var/run/postgresql"', '"db.example.org"'))
    assert config.registry
    assert config.metrics == Address("127.0.0.1", 9632)
    assert config.tls
    assert config.upstream.certificate
    assert config.watch["own_decoys"] == "alert"
    assert isinstance(config.alerts["webhook"], list)
    for name, table in tomllib.loads(whole).items():
        if isinstance(table, dict) and name not in {"watch", "alerts"}:
            assert set(table) == set(getattr(config, name).__slots__), name


@pytest.mark.parametrize(
    ("text", "address", "socket"),
    [
        ("db.example.org:6432", Address("db.example.org", 6432), None),
        ("[::1]:5432", Address("::1", 5432), None),
        ("unix:/run/pgbalise", Address("/run/pgbalise", 6432), "/run/pgbalise/.s.PGSQL.6432"),
        ("unix:/run/pgbalise/:5432", Address("/run/pgbalise", 5432), "/run/pgbalise/.s.PGSQL.5432"),
    ],
)
def test_addresses_to_listen_on(text: str, address: Address, socket: str | None) -> None:
    [found] = parse_config(f'listen = ["{text}"]').listen
    assert found == address
    assert found.socket == (Path(socket) if socket else None)
    assert parse_config(f'listen = ["{found}"]').listen == (address,)


def test_server_over_the_network_is_verified_unless_told_otherwise() -> None:
    assert parse_config('[upstream]\nhost = "db"').upstream.tls is TlsMode.VERIFY_FULL
    assert parse_config('[upstream]\nhost = "/run/pg"').upstream.tls is TlsMode.DISABLE
    assert parse_config('[upstream]\nhost = "db"\ntls = "require"').upstream.tls is TlsMode.REQUIRE


def test_tls_is_required_once_there_is_a_certificate() -> None:
    tls = parse_config(TLS).tls
    assert tls is not None
    assert tls.required
    relaxed = parse_config(TLS + "required = false").tls
    assert relaxed is not None
    assert not relaxed.required


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("listen = 5", "listen: must be a list of addresses", 'write listen = ["127.0.0.1:6432"]'),
        ("listen = []", "listen: must be a list", "write"),
        ('listen = ["*:6432"]', "listen: must be host:port", "0.0.0.0"),
        ('listen = ["::1:6432"]', "listen: must be host:port", ""),
        ('listen = ["h:0"]', "listen: a port is from 1 to 65535", ""),
        ('listen = ["h:1", "h:1"]', "listen: h:1 stands there twice", ""),
        (f'listen = ["unix:/{"x" * 100}"]', "listen: a Unix socket's path", ""),
        ('metrics = "unix:/run/x"', "metrics: must be host:port", ""),
        ("workers = -1", "workers: must be a whole number from 0 to 1024", "write workers = 0"),
        ("workers = true", "workers: must be a whole number", "write workers = 0"),
        ("workers = 2.0", "workers: must be a whole number", "write workers = 0"),
        ('spool = "relative"', "spool: must be an absolute path", "write spool"),
        ("user = 1", "user: must be a text", 'write user = "pgbalise_proxy"'),
        ("limits = 1", "limits: must be a table", "write [limits]"),
        ("[limits]\nconnection = 3", "limits.connection: there is no such", "limits.connections"),
        ("[limits]\nstatement_bytes = 1", "limits.statement_bytes: must be", "write limits.state"),
        ("colour = 1", "colour: there is no such key", "known are alerts, "),
        ("listn = 1", "listn: there is no such key", "is it listen?"),
        ('[upstream]\npassword = "x"', "upstream.password: there is no such key", "no secret"),
        ('[upstream]\nhost = "db"\ntls = "on"', "upstream.tls: must be one of", ""),
        ('[upstream]\ntls = "require"', "upstream.tls: PostgreSQL has no TLS on a Unix", "leave"),
        ('[upstream]\nhost = "db"\ncertificate = "/c"', "upstream.certificate: it needs", "write"),
        ('[upstream]\nhost = "db"\ntls = "disable"\ncertificate = "/c"\nkey = "/k"',
         "upstream.certificate: without TLS", "leave"),
        ('[upstream]\nhost = "db"\ntls = "require"\nca = "/c"', "upstream.ca: with tls", "verify"),
        ('[tls]\ncertificate = "/c"', "tls.certificate: it needs a key", "write tls.key"),
        ('[tls]\nkey = "/c"', "tls.key: it needs a certificate", "write tls.certificate"),
        ("[tls]\nrequired = true", "tls.required: there is no TLS without", "tls.certificate"),
        (TLS + 'minimum_version = "1.1"', "tls.minimum_version: must be one of", ""),
        (TLS + "required = 1", "tls.required: must be true or false", ""),
        ('[authentication]\nmode = "trust"', "authentication.mode: must be one of", ""),
        ('[authentication]\nmode = "certificate"', "authentication.mode: clients", "tls.client_ca"),
        ('[rewrite]\nfunctions = "f"', "rewrite.functions: must be a list of texts", "write"),
        ('[log]\nlevel = "loud"', "log.level: must be one of", ""),
        ("[", "the configuration is no TOML", ""),
    ],
)  # fmt: skip
def test_refusal_names_the_key_and_says_what_to_write(text: str, message: str, hint: str) -> None:
    found = refusal(text)
    assert found.message.startswith(message)
    assert hint in (found.hint or "")
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=r password=hunter2",
        "postgresql://u:hunter2@r/d",
        "host=r sslpassword=hunter2",
        "host=r hunter2",
        "postgresql://u:hunter2@@r/d",
    ],
)
def test_registry_password_is_refused_and_not_repeated(dsn: str) -> None:
    found = refusal(f'registry = "{dsn}"')
    assert found.message.startswith("registry: ")
    assert "hunter2" not in str(found)


def test_certificate_login_with_all_it_needs() -> None:
    config = parse_config(TLS + 'client_ca = "/a"\n[authentication]\nmode = "certificate"')
    assert config.authentication.mode is AuthenticationMode.CERTIFICATE


def test_reload_keeps_what_takes_a_restart() -> None:
    old = parse_config("")
    new = parse_config(
        'listen = ["127.0.0.1:1"]\nworkers = 3\n[limits]\nconnections = 7\n'
        "[ledger]\nmax_bytes = 1048577\npoint_rows = 5"
    )
    assert old.reloadable(new) == ("listen", "workers", "ledger.max_bytes")
    kept = old.reloaded(new)
    assert (kept.listen, kept.workers, kept.ledger.max_bytes) == (
        old.listen,
        old.workers,
        old.ledger.max_bytes,
    )
    assert (kept.limits.connections, kept.ledger.point_rows) == (7, 5)
    assert kept.reloadable(parse_config("")) == ()


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("", 0),
        ('listen = ["0.0.0.0:6432", "[::1]:6432", "unix:/run/x"]', 1),
        ('listen = ["0.0.0.0:6432"]\n' + TLS, 0),
        ('listen = ["0.0.0.0:6432"]\n' + TLS + "required = false", 1),
        ('metrics = "192.0.2.7:9632"', 1),
        ('[upstream]\nhost = "db"\ntls = "require"', 1),
        ('[upstream]\nhost = "localhost"\ntls = "prefer"', 0),
    ],
)
def test_unwise_settings_are_pointed_out(text: str, warnings: int) -> None:
    assert len(parse_config(text).warnings()) == warnings


toml_values = st.one_of(
    st.integers(-5, 5),
    st.booleans(),
    st.sampled_from(["''", "'x'", "'/x'", "[]", "['x']", "{}", "1.5", "2026-01-01", "'a:1'"]),
)
keys = st.sampled_from(
    re.findall(r"^(?:# )?(\w+) = ", EXAMPLE, re.MULTILINE)
    + [
        f"{table}.{key}"
        for table in ("upstream", "tls", "limits")
        for key in ("host", "key", "tls")
    ]
)


@given(st.dictionaries(keys, toml_values, max_size=4))
def test_anything_else_is_read_or_refused(settings: dict[str, object]) -> None:
    text = "\n".join(f"{key} = {str(value).lower()}" for key, value in settings.items())
    try:
        config = parse_config(text)
    except InvalidInput:
        return
    assert isinstance(config, Config)
