"""Who gets in, by which way of proving it, and that no secret shows."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import port_for
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.relays import loopback
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.wire import messages as m
from tests.proxy.proxied import Proxy, build, running

SECRET = "s3cr3t-Väterchen"
DBNAME = "ward"
HBA = """
local all postgres trust
local all keeper trust
hostssl all postgres all trust
host all keeper all trust
hostssl all mapped all cert map=proxy
host all open all trust
host all hashed all md5
host all clear all password
host all all all scram-sha-256
"""
ROLES = f"""
CREATE ROLE open LOGIN; CREATE ROLE mapped LOGIN;
ALTER ROLE reader PASSWORD '{SECRET}';
CREATE ROLE clear LOGIN PASSWORD '{SECRET}';
CREATE ROLE salted LOGIN PASSWORD '{SECRET}';
CREATE ROLE expired LOGIN PASSWORD '{SECRET}' VALID UNTIL '2020-01-01';
SET password_encryption TO md5;
CREATE ROLE hashed LOGIN PASSWORD '{SECRET}';
GRANT SELECT (rolname, rolpassword, rolcanlogin, rolvaliduntil) ON pg_catalog.pg_authid TO keeper;
"""


class Authority:
    """Makes certificates into a folder."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder = folder
        self.host = host
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca = folder / "ca.pem"
        self._write("ca", self.name, self.key)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the certificate and key of a host or role."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._write(name, subject, ec.generate_private_key(ec.SECP256R1()))

    def _write(
        self, name: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> tuple[Path, Path]:
        now = datetime.now(UTC)
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(host)) for host in (self.host, "127.0.0.1")
        ]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.BasicConstraints(subject == self.name, None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        certificate, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        secret.chmod(0o600)
        return certificate, secret


@dataclass(frozen=True)
class Site:
    """A server with TLS that asks for passwords, and who signs certificates there."""

    cluster: ThrowawayCluster
    host: str
    authority: Authority

    def upstream(self, tls: str = "verify-full", more: str = "") -> str:
        """The proxy's section about the server."""
        ca = f'\nca = "{self.authority.ca}"' if tls.startswith("verify") else ""
        return f'host = "{self.host}"\nport = 5432\ntls = "{tls}"{ca}\n{more}'

    def tls(self, *, required: bool = True, clients: bool = False) -> str:
        """The proxy's section about its clients."""
        certificate, key = self.authority.folder / "door.pem", self.authority.folder / "door.key"
        ca = f'client_ca = "{self.authority.ca}"\n' if clients else ""
        return (
            f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n{ca}'
            f"required = {str(required).lower()}\n"
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server, on an address of its own."""
    host = loopback()
    authority = Authority(tmp_path_factory.mktemp("certificates"), host)
    for name in ("door", "keeper", "mapped", "other"):
        authority.issue(name)
    with ThrowawayCluster(settings={"listen_addresses": host, "log_statement": "all"}) as cluster:
        build(cluster, DBNAME)
        # rights on a catalog are a database's own, though the roles are all databases'
        cluster.psql(ROLES, dbname=DBNAME)
        owner = cluster.data_dir.stat()
        for source in (*authority.issue("server"), authority.ca):
            target = cluster.data_dir / source.name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            os.chown(target, owner.st_uid, owner.st_gid)
        (cluster.data_dir / "pg_hba.conf").write_text(HBA)
        (cluster.data_dir / "pg_ident.conf").write_text("proxy keeper mapped\n")
        for name, value in (
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.pem"),
            ("ssl", "on"),
        ):
            cluster.psql(f"ALTER SYSTEM SET {name} = '{value}'")
        cluster.psql("SELECT pg_reload_conf()")
        yield Site(cluster, host, authority)


@contextmanager
def door(
    site: Site, folder: Path, upstream: str = "", more: str = "", workers: int = 1
) -> Iterator[Proxy]:
    """A proxy in front of the site's server."""
    with running(
        folder, DBNAME, upstream or site.upstream(), top=f"workers = {workers}", more=more
    ) as made:
        yield made
        # whatever happened, no secret is in what was said
        assert SECRET not in made.log
        assert "SCRAM-SHA-256$" not in made.log


@pytest.fixture(scope="module")
def relayed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """TLS if the client wants it; passwords go to the server."""
    with door(site, tmp_path_factory.mktemp("relay"), more=site.tls(required=False)) as made:
        yield made


@pytest.fixture(scope="module")
def ending(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """SCRAM ends at the proxy, with TLS on both sides."""
    with door(
        site,
        tmp_path_factory.mktemp("scram"),
        more=site.tls() + '[authentication]\nmode = "scram"',
        workers=2,
    ) as made:
        yield made


def who(proxy: Proxy, user: str, **more: object) -> tuple[str, ...]:
    """Log in; return who that is for the server."""
    with proxy.connect(user, **more) as connection:
        return connection.execute("SELECT session_user::text, current_user::text").fetchall()[0]


def refusal(proxy: Proxy, user: str, **more: object) -> str:
    """Fail to log in; return what is said of it."""
    with pytest.raises(psycopg.OperationalError) as problem:
        who(proxy, user, **more)
    assert SECRET not in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize("user", ["open", "hashed", "clear", "salted", "reader"])
@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_the_servers_own_authentication_is_handed_on(
    relayed: Proxy, user: str, sslmode: str
) -> None:
    given = {"password": SECRET, "sslmode": sslmode, "channel_binding": "disable"}
    assert who(relayed, user, **given) == (user, user)


def test_a_password_file_is_used(relayed: Proxy, tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:{relayed.port}:*:salted:{SECRET}\n")
    passfile.chmod(0o600)
    assert who(relayed, "salted", passfile=passfile) == ("salted", "salted")


@pytest.mark.parametrize("user", ["hashed", "clear", "salted", "nobody", "expired"])
def test_a_wrong_password_gets_the_servers_error(relayed: Proxy, site: Site, user: str) -> None:
    password = SECRET if user == "expired" else "wrong"
    with pytest.raises(psycopg.OperationalError) as direct:
        psycopg.connect(
            host=site.host,
            port=5432,
            user=user,
            dbname=DBNAME,
            password=password,
            sslmode="disable",
        )
    said = refusal(relayed, user, password=password, sslmode="disable")
    assert said.splitlines()[-1].split("FATAL:")[1] in str(direct.value)


def test_a_database_that_is_not_there_gets_the_servers_error(relayed: Proxy) -> None:
    assert 'database "nowhere" does not exist' in refusal(relayed, "open", dbname="nowhere")


def test_binding_to_the_channel_needs_one_channel(relayed: Proxy) -> None:
    said = refusal(relayed, "salted", password=SECRET, sslmode="require", channel_binding="require")
    assert "channel binding" in said
    # with TLS on both sides, the server takes the missing offer for an attack
    said = refusal(relayed, "salted", password=SECRET, sslmode="require")
    assert "channel binding" in said


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_tls_to_the_client_is_verified(relayed: Proxy, site: Site, negotiation: str) -> None:
    given = {
        "sslmode": "verify-full",
        "sslrootcert": site.authority.ca,
        "sslnegotiation": negotiation,
    }
    with relayed.connect("open", **given) as connection:
        assert connection.pgconn.ssl_in_use


def test_direct_tls_asks_for_its_protocol(relayed: Proxy) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = []
    for protocols in (["postgresql"], []):
        context.set_alpn_protocols(protocols)
        with (
            socket.create_connection(("127.0.0.1", relayed.port), 5) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            encrypted.sendall(m.startup_message({"user": "open", "database": DBNAME}))
            said.append(encrypted.recv(1))
    # an AuthenticationRequest, and an ErrorResponse
    assert said == [b"R", b"E"]


@pytest.mark.slow
@pytest.mark.parametrize("tls", ["prefer", "require", "verify-ca", "verify-full"])
def test_tls_to_the_server(site: Site, tmp_path: Path, tls: str) -> None:
    with door(site, tmp_path, site.upstream(tls)) as made, made.connect("open") as connection:
        rows = connection.execute(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchall()
    assert rows == [(True,)]


def test_a_server_with_another_certificate_is_not_talked_to(site: Site, tmp_path: Path) -> None:
    other = Authority(tmp_path, site.host)
    upstream = site.upstream().replace(str(site.authority.ca), str(other.ca))
    with door(site, tmp_path, upstream) as made:
        assert "the proxy cannot serve" in refusal(made, "open")
        assert "server not reached" in made.log


def test_tls_can_be_asked_for(ending: Proxy, site: Site) -> None:
    assert "encrypted connections only" in refusal(ending, "salted", sslmode="disable")


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_scram_ends_at_the_proxy(ending: Proxy, site: Site, binding: str) -> None:
    given = {"password": SECRET, "sslmode": "require", "channel_binding": binding}
    assert who(ending, "salted", **given) == ("salted", "salted")
    with ending.connect("reader", application_name=f"scram {binding}", **given) as reader:
        assert len(reader.execute("SELECT * FROM hospital.patient").fetchall()) == 5000
    assert len(ending.intents(f"scram {binding}")) == 1


@pytest.mark.parametrize("user", ["salted", "nobody", "expired", "hashed", "open"])
def test_scram_tells_nobody_who_there_is(ending: Proxy, user: str) -> None:
    password = SECRET if user in ("expired", "hashed") else "wrong"
    said = {refusal(ending, user, password=password, sslmode="require") for _ in range(3)}
    [text] = {one.splitlines()[-1].replace(f'"{user}"', "X") for one in said}
    assert text.endswith("FATAL:  password authentication failed for user X")


def test_all_workers_draw_a_strangers_salt_alike(ending: Proxy) -> None:
    assert len({salt(ending, "nobody") for _ in range(8)}) == 1


def salt(proxy: Proxy, user: str) -> bytes:
    """What the proxy says is a user's salt."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as plain:
        plain.sendall(m.SSL_REQUEST_MESSAGE)
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain) as encrypted:
            encrypted.sendall(m.startup_message({"user": user, "database": DBNAME}))
            encrypted.recv(1000)
            first = b"n,,n=,r=abcdefghijkl"
            body = b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
            encrypted.sendall(m.message(m.Frontend.PASSWORD, body))
            return encrypted.recv(1000).split(b",s=")[1].split(b",")[0]


def test_a_changed_password_holds_at_once(ending: Proxy, site: Site) -> None:
    site.cluster.psql("CREATE ROLE changing LOGIN PASSWORD 'before'")
    assert who(ending, "changing", password="before", sslmode="require")
    site.cluster.psql("ALTER ROLE changing PASSWORD 'after'")
    refusal(ending, "changing", password="before", sslmode="require")
    assert who(ending, "changing", password="after", sslmode="require")


def test_certificates_let_their_names_in(site: Site, tmp_path: Path) -> None:
    folder = site.authority.folder
    own = f'certificate = "{folder}/keeper.pem"\nkey = "{folder}/keeper.key"'
    socket_folder = tmp_path / "s"
    socket_folder.mkdir()
    port = port_for.select_random()
    with running(
        tmp_path,
        DBNAME,
        site.upstream(more=own),
        port=port,
        top=f'workers = 1\nlisten = ["127.0.0.1:{port}", "unix:{socket_folder}:{port}"]',
        more=site.tls(clients=True) + '[authentication]\nmode = "certificate"',
    ) as made:

        def shown(name: str) -> dict[str, object]:
            return {
                "sslmode": "require",
                "sslcert": folder / f"{name}.pem",
                "sslkey": folder / f"{name}.key",
            }

        assert who(made, "mapped", **shown("mapped")) == ("mapped", "mapped")
        assert "certificate authentication failed" in refusal(made, "mapped", **shown("other"))
        assert "certificate" in refusal(made, "mapped", sslmode="require")
        assert "certificate" in refusal(made, "mapped", host=socket_folder)
