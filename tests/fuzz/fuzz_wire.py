"""Feed the wire core whatever a fuzzer thinks of: only ProtocolViolation may come out.

Needs atheris, which this project does not depend on::

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    PYTHONPATH=. /tmp/fuzz/bin/python tests/fuzz/fuzz_wire.py -max_total_time=600

The first byte of an input chooses what it is fed to, the rest is made of pieces: two bytes of
length, whose highest bit says which side sends the piece, and the piece. An input that brings
something else out is written to ``crash-...``; ``reproduce(open(...).read())`` runs it again.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["pgbalise"]):
        for name in ("encodings", "login", "relay", "scram", "startup"):
            importlib.import_module(f"pgbalise.wire.{name}")

from pgbalise.errors import AuthenticationRefused
from pgbalise.wire import messages as m
from pgbalise.wire.encodings import UnknownEncoding, decode, encode
from pgbalise.wire.login import Login
from pgbalise.wire.relay import Ask, Forward, Refuse, Relay, Verdict
from pgbalise.wire.scram import ScramServer, Verifier
from pgbalise.wire.startup import Opening, ProtocolViolation


class Gate:
    """A gate that asks, refuses, edits and counts, or only lets everything pass."""

    def __init__(self, *, permissive: bool) -> None:
        self.permissive = permissive
        self.values_wanted = not permissive
        self.asked = b""
        self.open = 0

    def statement(self, sql: bytes) -> Verdict:
        if self.permissive:
            return Forward(None, None)
        choice = len(sql) % 5
        if choice == 0:
            self.asked = sql
            return Ask(b"SELECT $1", [b"x"])
        if choice == 1:
            return Refuse(m.error_response("42501", "no"))
        return Forward(sql + b" " if choice == 2 else None, sql)

    def answered(self, rows: list[tuple[bytes | None, ...]]) -> Forward | Refuse:
        return Forward(None, self.asked) if rows else Refuse(m.error_response("42501", "no"))

    def known(self, name: bytes) -> Any:
        return name if name[:1] == b"k" and not self.permissive else None

    cursor = known

    def bound(self, token: Any, values: Any) -> bytes | None:
        return m.error_response("0A000", "stale") if len(values) == 3 else None

    def starts(self, token: Any) -> int:
        self.open += 1
        return 0

    def ended(self, token: Any, step: int, *_: Any) -> None:
        if step == 0:
            self.open -= 1
        assert self.open >= 0, "ended more often than started"

    def parameter(self, name: str, value: str) -> None:
        assert isinstance(name, str)

    def idle(self, status: int, quiet: bool) -> None:
        pass


class Answers:
    """The client's side of an exchange that is always content."""

    def start(self, offered: tuple[str, ...]) -> tuple[str, bytes]:
        return "SCRAM-SHA-256", b"n,,n=,r=x"

    def next(self, data: bytes) -> bytes:
        return b"c=biws,r=x,p=x"

    def verify(self, data: bytes) -> None:
        pass


def pieces(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """Split an input into what either side sends."""
    while len(data) >= 2:
        head = int.from_bytes(data[:2], "big")
        size = (head & 0x7FFF) + 1
        yield bool(head >> 15), data[2 : 2 + size]
        data = data[2 + size :]


def relay(data: bytes, *, permissive: bool) -> None:
    session = Relay(Gate(permissive=permissive), statement_bytes=1 << 16)
    for server, piece in pieces(data):
        if server:
            session.from_server(piece)
        elif not session.over:
            session.from_client(piece)
        session.busy  # noqa: B018 - must not raise either
        session.to_client.clear()
        session.to_server.clear()


def login(data: bytes, answers: Answers | None) -> None:
    newest = m.PROTOCOL_3_2 if data[:1] > b"\x80" else None
    one = Login(newest=newest, unspoken=("_pq_.x",) if newest else (), answers=answers)
    for server, piece in pieces(data):
        (one.from_server if server else one.from_client)(piece)


def opening(data: bytes, *, tls: bool) -> None:
    one = Opening(tls=tls, tls_required=data[:1] > b"\xf0", encrypted=data[:1] < b"\x10")
    for _, piece in pieces(data):
        assert one.wanted >= 0
        one.receive(piece)


def scram(data: bytes) -> None:
    one = ScramServer(Verifier.mock("someone", bytes(32)), "nonce", None)
    name, _, rest = data.partition(b"\0")
    with contextlib.suppress(AuthenticationRefused):
        one.start(name.decode("ascii", "replace"), rest)
        one.finish(rest)


ENCODINGS = ("UTF8", "LATIN1", "SJIS", "BIG5", "GBK", "GB18030", "EUC_JP", "SQL_ASCII", "UHC", "")


def text(data: bytes) -> None:
    encoding = ENCODINGS[data[0] % len(ENCODINGS)] if data else ""
    try:
        read = decode(data[1:], encoding, settled=len(data) % 2 == 0)
        assert encode(read, encoding) == data[1:]
    except UnknownEncoding:
        pass
    for reads in (
        m.error_fields,
        m.text_row,
        m.read_negotiation,
        lambda one: m.bound_values(one, 0),
    ):
        with contextlib.suppress(ValueError):
            reads(data)


TARGETS = (
    lambda data: relay(data, permissive=True),
    lambda data: relay(data, permissive=False),
    lambda data: relay(data, permissive=False),
    lambda data: login(data, None),
    lambda data: login(data, Answers()),
    lambda data: opening(data, tls=True),
    lambda data: opening(data, tls=False),
    scram,
    text,
)


def reproduce(data: bytes) -> None:
    """Run one input; raise what should not have come out."""
    if not data:
        return
    with contextlib.suppress(ProtocolViolation):
        TARGETS[data[0] % len(TARGETS)](data[1:])


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    """Put whole messages together now and then, so that lengths are right."""
    import random

    import atheris

    rng = random.Random(seed)
    if rng.random() < 0.5:
        mutated: bytes = atheris.Mutate(data, len(data))
        return mutated
    server = rng.random() < 0.5
    kinds = b"12CDEGHIKNRSTZAcdnstvW" if server else b"BCdcfDEHFPpQSX"
    body = rng.choice(
        (b"", b"\0", b"I", b"\0\0", b"a\0b\0\0\0", b"\0\0\0\0\0\0\0\0", b"SERROR\0C42601\0\0",
         b"SELECT 1\0", b"S\0", b"k\0\0\0\0\0", b"\0\0\0\x0a", b"COPY 1\0", b"VFATAL\0\0")
    )  # fmt: skip
    made = b"".join(m.message(rng.choice(kinds), body) for _ in range(rng.randrange(1, 4)))
    head = (len(made) - 1) | (0x8000 if server else 0)
    return (data or b"\x01")[: most - len(made) - 2] + head.to_bytes(2, "big") + made


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, reproduce, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
