"""SCRAM at both ends, against the RFC's example, another implementation, libpq and PostgreSQL."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.errors import AuthenticationRefused, InvalidInput
from pgbalise.wire.scram import PLAIN, PLUS, ScramClient, ScramServer, Verifier, end_point

PASSWORD = "pencil, café"
BINDING = hashlib.sha256(b"a certificate").digest()
PROTOCOL_VIOLATION, WRONG_PASSWORD, WRONG_SERVER = "08P01", "28P01", "28000"

printable = st.text(st.characters(codec="ascii", exclude_characters=",", min_codepoint=0x21,
                                  max_codepoint=0x7E), min_size=1, max_size=40)  # fmt: skip


def verifier(password: str = PASSWORD, salt: bytes = b"0123456789abcdef") -> Verifier:
    salt, stored, server, rounds = scramp.ScramMechanism(PLAIN).make_auth_info(password, 4096, salt)
    return Verifier(rounds, salt, stored, server)


KNOWN = verifier()


def peer(password: str, nonce: str, binding: bytes | None, offered: tuple[str, ...]):
    bound = None if binding is None else ("tls-server-end-point", binding)
    return scramp.ScramClient(list(offered), "someone", password, bound, nonce)


def log_in(server: ScramServer, client) -> tuple[bytes, bytes]:
    client.set_server_first(
        server.start(client.mechanism_name, client.get_client_first().encode()).decode()
    )
    return server.finish(client.get_client_final().encode())


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(AuthenticationRefused) as caught:
        call()
    assert PASSWORD not in str(caught.value)
    return caught.value.sqlstate


# --- the stored secret


def test_stored_secret_is_read() -> None:
    fields = [
        base64.b64encode(part).decode() for part in (KNOWN.salt, KNOWN.stored_key, KNOWN.server_key)
    ]
    assert Verifier.parse(f"SCRAM-SHA-256$4096:{fields[0]}${fields[1]}:{fields[2]}") == KNOWN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "md5a3556571e93b0d20722ba62be61e8c2d",
        "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC",
        "SCRAM-SHA-256$4096:!!!!$!!!!:!!!!",
        f"SCRAM-SHA-256$1:{'A' * 24}${'A' * 43}=:{'A' * 43}=",
    ],
)
def test_other_secrets_are_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Verifier.parse(text)
    assert not text or text not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    assert KNOWN.stored_key.hex() not in repr(KNOWN)
    assert repr(KNOWN.stored_key) not in repr(KNOWN)


def test_unknown_user_gets_the_same_salt_each_time_and_no_login() -> None:
    secret = b"\1" * 32
    mock = Verifier.mock("nobody", secret)
    assert mock == Verifier.mock("nobody", secret)
    assert (
        len(
            {
                mock.salt,
                Verifier.mock("other", secret).salt,
                Verifier.mock("nobody", b"\2" * 32).salt,
            }
        )
        == 3
    )
    assert (mock.iterations, len(mock.salt)) == (4096, 16)
    client = peer(PASSWORD, "client", None, (PLAIN,))
    assert refused(lambda: log_in(ScramServer(mock, "server", None), client)) == WRONG_PASSWORD


# --- both ends against another implementation and the RFC's example


def test_rfc_7677_example() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    known = verifier("pencil", salt)
    client_nonce, server_nonce = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    server_first = f"r={client_nonce}{server_nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    client_final = (
        f"c=biws,r={client_nonce}{server_nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    ).encode()
    server_final = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

    server = ScramServer(known, server_nonce, None)
    assert server.start(PLAIN, f"n,,n=user,r={client_nonce}".encode()) == server_first
    answer, client_key = server.finish(client_final)
    assert answer == server_final
    assert hashlib.sha256(client_key).digest() == known.stored_key

    client = ScramClient("user", client_key, known, client_nonce, None, [PLAIN])
    assert client.start() == (PLAIN, f"n,,n=user,r={client_nonce}".encode())
    assert client.next(server_first) == client_final
    client.verify(server_final)


@settings(max_examples=25, deadline=None)
@given(client=printable, server=printable, binding=st.none() | st.binary(min_size=1, max_size=64))
def test_key_learned_from_one_login_serves_the_next(
    client: str, server: str, binding: bytes | None
) -> None:
    ours = ScramServer(KNOWN, server, binding)
    theirs = peer(PASSWORD, client, binding, ours.mechanisms)
    final, key = log_in(ours, theirs)
    theirs.set_server_final(final.decode())

    upstream = scramp.ScramMechanism(PLAIN if binding is None else PLUS).make_server(
        lambda name: (KNOWN.salt, KNOWN.stored_key, KNOWN.server_key, KNOWN.iterations),
        None if binding is None else ("tls-server-end-point", binding),
        server,
    )
    proxy = ScramClient("a=b,c", key, KNOWN, client, binding, ours.mechanisms)
    mechanism, first = proxy.start()
    assert mechanism == (PLAIN if binding is None else PLUS)
    upstream.set_client_first(first.decode())
    upstream.set_client_final(proxy.next(upstream.get_server_first().encode()).decode())
    proxy.verify(upstream.get_server_final().encode())


@settings(max_examples=25, deadline=None)
@given(
    password=st.text(
        st.characters(codec="ascii", min_codepoint=0x21, max_codepoint=0x7E), min_size=1
    )
)
def test_wrong_password_is_refused(password: str) -> None:
    client = peer(password, "client", None, (PLAIN,))
    assert refused(lambda: log_in(ScramServer(KNOWN, "server", None), client)) == WRONG_PASSWORD


# --- a client that breaks the protocol


@pytest.mark.parametrize(
    ("binding", "mechanism", "first"),
    [
        (BINDING, PLAIN, b"y,,n=,r=client"),
        (BINDING, PLAIN, b"p=tls-server-end-point,,n=,r=client"),
        (BINDING, PLUS, b"n,,n=,r=client"),
        (BINDING, PLUS, b"y,,n=,r=client"),
        (BINDING, PLUS, b"p=tls-unique,,n=,r=client"),
        (None, PLUS, b"p=tls-server-end-point,,n=,r=client"),
        (None, "SCRAM-SHA-1", b"n,,n=,r=client"),
        (None, PLAIN, b"n,a=other,n=,r=client"),
        (None, PLAIN, b"n,,m=1,n=,r=client"),
        (None, PLAIN, b"n,,n=\xff,r=client"),
        (None, PLAIN, b"n,,n="),
        (None, PLAIN, b""),
    ],
)
def test_first_message_against_the_rules_is_refused(
    binding: bytes | None, mechanism: str, first: bytes
) -> None:
    server = ScramServer(KNOWN, "server", binding)
    assert refused(lambda: server.start(mechanism, first)) == PROTOCOL_VIOLATION


def test_client_without_channel_binding_may_log_in_where_it_is_offered() -> None:
    server = ScramServer(KNOWN, "server", BINDING)
    assert server.mechanisms == (PLUS, PLAIN)
    assert log_in(server, peer(PASSWORD, "client", None, (PLAIN,)))


def test_binding_to_another_channel_is_refused() -> None:
    client = peer(PASSWORD, "client", b"another certificate", (PLUS,))
    server = ScramServer(KNOWN, "server", BINDING)
    assert refused(lambda: log_in(server, client)) == PROTOCOL_VIOLATION


@settings(max_examples=300, deadline=None)
@given(first=st.binary(max_size=60), final=st.binary(max_size=120), known_start=st.booleans())
def test_noise_is_refused_and_nothing_else_happens(
    first: bytes, final: bytes, known_start: bool
) -> None:
    server = ScramServer(KNOWN, "server", None)
    with suppress(AuthenticationRefused):
        server.start(PLAIN, b"n,,n=,r=client" if known_start else first)
        server.finish(final)
        pytest.fail("noise logged in")


# --- a server that is not the one


@pytest.mark.parametrize(
    ("first", "sqlstate"),
    [
        ("r=other,s={salt},i=4096", PROTOCOL_VIOLATION),
        ("r=client,s={salt},i=4096", PROTOCOL_VIOLATION),
        ("r=client1,s=?,i=4096", PROTOCOL_VIOLATION),
        ("r=client1,s=AAAA=A,i=4096", PROTOCOL_VIOLATION),
        ("e=other-error", PROTOCOL_VIOLATION),
        ("r=client1,s={salt},i=1", WRONG_PASSWORD),
        ("r=client1,s=AAAA,i=4096", WRONG_PASSWORD),
    ],
)
def test_server_that_asks_for_another_proof_gets_none(first: str, sqlstate: str) -> None:
    client = ScramClient("someone", b"\0" * 32, KNOWN, "client", None, [PLAIN])
    message = first.format(salt=base64.b64encode(KNOWN.salt).decode()).encode()
    assert refused(lambda: client.next(message)) == sqlstate


def test_server_without_the_secret_is_refused() -> None:
    client = ScramClient("someone", b"\0" * 32, KNOWN, "client", None, [PLAIN])
    client.next(b"r=client1,s=" + base64.b64encode(KNOWN.salt) + b",i=4096")
    for final in (b"v=" + base64.b64encode(b"\0" * 32), b"e=other-error", b""):
        assert refused(lambda final=final: client.verify(final)) == WRONG_SERVER


def test_server_without_scram_is_refused() -> None:
    with pytest.raises(AuthenticationRefused):
        ScramClient("someone", b"\0" * 32, KNOWN, "client", None, ["SCRAM-SHA-512"])


def test_server_that_hides_its_channel_binding_is_told_of_it() -> None:
    client = ScramClient("someone", b"\0" * 32, KNOWN, "client", BINDING, [PLAIN])
    assert client.start() == (PLAIN, b"y,,n=someone,r=client")


# --- real ends: libpq before the proxy, PostgreSQL behind it


@dataclass(frozen=True)
class Certificate:
    file: Path
    key: Path

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.file.read_text())


def make_certificate(folder: Path, *algorithm: str) -> Certificate:
    made = Certificate(folder / "server.crt", folder / "server.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         *algorithm, "-out", made.file, "-keyout", made.key],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(
        tmp_path_factory.mktemp("tls"),
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-sha384",
    )


RSA = ("-newkey", "rsa:2048")


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ((*RSA, "-sha1"), "sha256"),
        ((*RSA, "-sha512"), "sha512"),
        ((*RSA, "-sha384", "-sigopt", "rsa_padding_mode:pss"), "sha384"),
        (("-newkey", "ed25519"), None),
    ],
)
def test_end_point_goes_by_the_signature(
    tmp_path: Path, algorithm: tuple[str, ...], digest: str | None
) -> None:
    der = make_certificate(tmp_path, *algorithm).der
    assert end_point(der) == (None if digest is None else hashlib.new(digest, der).digest())


def test_end_point_of_something_else_is_refused() -> None:
    with pytest.raises(InvalidInput):
        end_point(b"no certificate")


def read_message(stream: socket.socket) -> tuple[bytes, bytes]:
    head = b""
    while len(head) < 5:
        head += stream.recv(5 - len(head))
    size, body = struct.unpack("!I", head[1:])[0] - 4, b""
    while len(body) < size:
        body += stream.recv(size - len(body))
    return head[:1], body


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def nonce() -> str:
    return secrets.token_urlsafe(18)


@contextmanager
def front(known: Verifier, certificate: Certificate, learned: list[bytes]) -> Iterator[int]:
    """A server that logs clients in over TLS, and does nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)

    def serve(plain: socket.socket) -> None:
        assert plain.recv(8) == struct.pack("!II", 8, 80877103)
        plain.sendall(b"S")
        with context.wrap_socket(plain, server_side=True) as stream:
            stream.recv(4096)
            server = ScramServer(known, nonce(), end_point(certificate.der))
            offered = b"".join(name.encode() + b"\0" for name in server.mechanisms)
            stream.sendall(message(b"R", struct.pack("!I", 10) + offered + b"\0"))
            name, _, first = read_message(stream)[1].partition(b"\0")
            try:
                stream.sendall(
                    message(b"R", struct.pack("!I", 11) + server.start(name.decode(), first[4:]))
                )
                final, key = server.finish(read_message(stream)[1])
            except AuthenticationRefused as problem:
                fields = f"SFATAL\0C{problem.sqlstate}\0M{problem.message}\0\0".encode()
                stream.sendall(message(b"E", fields))
                return
            learned.append(key)
            stream.sendall(
                message(b"R", struct.pack("!I", 12) + final)
                + message(b"R", struct.pack("!I", 0))
                + message(b"Z", b"I")
            )

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    serve(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def upstream(certificate: Certificate) -> Iterator[tuple[ThrowawayCluster, str]]:
    """A server that asks for SCRAM over TLS, and its address."""
    host = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250)}.{os.getpid() % 250 + 1}"
    cluster = ThrowawayCluster(settings={"listen_addresses": host})
    with cluster:
        cluster.psql("CREATE ROLE reader LOGIN; SET password_encryption = 'scram-sha-256';"
                     f" ALTER ROLE reader PASSWORD '{PASSWORD}';")  # fmt: skip
        for source in (certificate.file, certificate.key):
            target = cluster.data_dir / source.name
            shutil.copy(source, target)
            target.chmod(0o600)
            shutil.chown(target, cluster.data_dir.stat().st_uid, cluster.data_dir.stat().st_gid)
        hba_file = cluster.data_dir / "pg_hba.conf"
        hba_file.write_text("local all all trust\nhostssl all reader 127.0.0.0/8 scram-sha-256\n")
        cluster.psql("ALTER SYSTEM SET ssl = on")
        cluster.psql("SELECT pg_reload_conf()")
        yield cluster, host


def stored_secret(cluster: ThrowawayCluster) -> Verifier:
    return Verifier.parse(
        cluster.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'reader'").strip()
    )


def test_libpq_logs_in_here_and_its_key_logs_in_there(
    certificate: Certificate, upstream: tuple[ThrowawayCluster, str]
) -> None:
    cluster, host = upstream
    known = stored_secret(cluster)
    learned: list[bytes] = []
    with front(known, certificate, learned) as port:
        dsn = f"host=127.0.0.1 port={port} user=reader sslmode=require connect_timeout=5"
        for binding in ("require", "disable"):
            psycopg.connect(dsn, password=PASSWORD, channel_binding=binding).close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn, password="wrong")
    assert len(learned) == 2
    assert learned[0] == learned[1]

    with socket.create_connection((host, cluster.port)) as plain:
        plain.sendall(struct.pack("!II", 8, 80877103))
        assert plain.recv(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificate.file)
        context.check_hostname = False
        with context.wrap_socket(plain) as stream:
            startup = struct.pack("!I", 196608) + b"user\0reader\0database\0postgres\0\0"
            stream.sendall(struct.pack("!I", len(startup) + 4) + startup)
            kind, body = read_message(stream)
            assert (kind, body[:4]) == (b"R", struct.pack("!I", 10))
            offered = [name.decode() for name in body[4:].split(b"\0") if name]
            shown = stream.getpeercert(binary_form=True)
            assert shown is not None
            client = ScramClient("reader", learned[0], known, nonce(), end_point(shown), offered)
            mechanism, first = client.start()
            assert mechanism == PLUS
            stream.sendall(
                message(b"p", mechanism.encode() + b"\0" + struct.pack("!I", len(first)) + first)
            )
            stream.sendall(message(b"p", client.next(read_message(stream)[1][4:])))
            client.verify(read_message(stream)[1][4:])
            assert read_message(stream) == (b"R", struct.pack("!I", 0))
