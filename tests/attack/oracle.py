"""What nobody but the superuser may know, and whether it is in what a client was sent.

Two oracles. One looks in everything that came back for texts that the role must not read. The
other runs the same script in a *twin* database, where mallory's marked views are the same to the
byte but every stored value, all decoys and the stored word of the other recipients differ:
whatever differs between the two runs tells mallory something that its views do not.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHORTEST = 8
"""Texts with fewer characters would be found by accident."""


def spellings(number: int) -> Iterator[str]:
    """A 64-bit number in decimal, signed or not, and in hexadecimal."""
    raw = (number % 2**64).to_bytes(8, "big")
    yield from (str(number), str(number % 2**64), raw.hex(), raw[::-1].hex())


def pieces(secret: bytes) -> Iterator[str]:
    """Every 8 bytes of a secret: hexadecimal, escaped, their bits in either order, base64."""
    for at in range(0, len(secret) - 7, 8):
        part = secret[at : at + 8]
        yield part.hex()
        yield "".join(map(escaped, part)).lower()
        yield "".join(f"{byte:08b}" for byte in part)
        yield "".join(f"{byte:08b}"[::-1] for byte in part)
    for offset in range(3):
        text = base64.b64encode(secret[offset:]).decode().rstrip("=").lower()
        yield from (text[at : at + 12] for at in range(0, len(text) - 11, 12))


def escaped(byte: int) -> str:
    """A byte as PostgreSQL's escape format writes it."""
    if byte in (0, *range(128, 256)):
        return f"\\{byte:03o}"
    return "\\\\" if byte == 92 else chr(byte)


def written(value: object) -> str:
    """A value as text, binary strings in hexadecimal."""
    if isinstance(value, list):
        return " ".join(map(written, value))
    return value.hex() if isinstance(value, bytes) else str(value)


def texts_of(value: object) -> set[str]:
    """How a stored value may be written, in lower case; none for one too short to recognise."""
    found: set[str] = set()
    match value:
        case datetime():
            micros = round(value.timestamp() * 1_000_000)
            plain = value.replace(tzinfo=None)
            found = {plain.isoformat(" "), plain.isoformat(), str(micros)}
            found.add(f"{micros // 1_000_000}.{micros % 1_000_000:06}")
        case date():
            found = {value.isoformat(), f"{value:%d/%m/%Y}", f"{value:%Y%m%d}"}
        case int() if abs(value) >= 10**SHORTEST:
            found = set(spellings(value))
        case _:
            found = {str(value)}
    return {text.lower() for text in found if len(text) >= SHORTEST}


@dataclass
class Heard:
    """Everything that the server sent to the attackers of one script."""

    texts: list[str] = field(default_factory=list)
    states: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """The statements: what they contain, the attacker knew already."""

    def among(self, forbidden: Iterable[str]) -> set[str]:
        """The forbidden texts that came back."""
        everything = "\n".join(self.texts).lower()
        # secrets given bit by bit, a row or an array element each
        joined = re.sub(r"[\s,{}()|\"]+", "", everything)
        asked = "\n".join(self.asked).lower()
        grams = {text[i : i + SHORTEST] for text in (everything, joined) for i in range(len(text))}
        return {
            text
            for text in forbidden
            if text[:SHORTEST] in grams
            and (text in everything or text in joined)
            and text not in asked
        }

    def settled(self) -> list[str]:
        """The texts without what differs from one run to the next."""
        return [_settle(text) for text in self.texts]


_NOISE = [
    (re.compile(pattern), mark)
    for pattern, mark in (
        (r"\battack_\w+", "<database>"),
        (r"\bpg_temp_\d+", "pg_temp"),
        (r"actual time=[\d.]+", "actual time="),
        (r"202\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?", "<now>"),
        (r"(Buffers|Planning|I/O Timings|Memory|Timing|JIT)\b.*", "<effort>"),
        (r"Sort Method: .*", "<effort>"),
        (r"Buckets: .*", "<effort>"),
        (r"(?i)\b(process|pid|transaction|virtual transaction)\b.\d+", "<process>"),
    )
]


def _settle(text: str) -> str:
    for pattern, mark in _NOISE:
        text = pattern.sub(mark, text)
    return text


class Client:
    """A connection at the level of libpq: all that it is sent is kept, nothing is interpreted."""

    def __init__(self, dsn: str, heard: Heard) -> None:
        self.heard = heard
        self.last = ""
        self._connection = pq.PGconn.connect(dsn.encode())
        if self._connection.status != pq.ConnStatus.OK:
            heard.texts.append(self._connection.error_message.decode())
            heard.states.add("refused")
        self._connection.notice_handler = self._keep_message

    def run(self, statement: str) -> None:
        """Run one statement, whatever happens, and keep what comes back."""
        connection = self._connection
        self.heard.asked.append(statement)
        if connection.status != pq.ConnStatus.OK:
            return
        connection.send_query(statement.encode())
        while (result := connection.get_result()) is not None:
            if result.status == pq.ExecStatus.COPY_OUT:
                while (copied := connection.get_copy_data(0))[0] > 0:
                    self._keep(bytes(copied[1]))
            elif result.status == pq.ExecStatus.COPY_IN:
                connection.put_copy_end(None)
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                self._keep_message(result)
            else:
                self._keep_rows(result)
        while (notify := connection.notifies()) is not None:
            self._keep(notify.relname + b" " + notify.extra)

    def close(self) -> None:
        self._connection.finish()

    def _keep_rows(self, result: pq.abc.PGresult) -> None:
        self._keep(result.command_status or b"")
        for row in range(result.ntuples):
            values = [result.get_value(row, at) for at in range(result.nfields)]
            self._keep(b" ".join(value for value in values if value is not None))
            self.last = (values[0] or b"").decode("latin1") if values else ""
            for at, value in enumerate(values):
                if value is not None and result.fformat(at) == pq.Format.BINARY:
                    self._keep(value.hex().encode())
        for at in range(result.nfields):
            self._keep(result.fname(at) or b"")

    def _keep_message(self, result: pq.abc.PGresult) -> None:
        for part in (
            pq.DiagnosticField.MESSAGE_PRIMARY,
            pq.DiagnosticField.MESSAGE_DETAIL,
            pq.DiagnosticField.MESSAGE_HINT,
            pq.DiagnosticField.CONTEXT,
            pq.DiagnosticField.INTERNAL_QUERY,
            pq.DiagnosticField.SCHEMA_NAME,
            pq.DiagnosticField.TABLE_NAME,
            pq.DiagnosticField.COLUMN_NAME,
            pq.DiagnosticField.DATATYPE_NAME,
            pq.DiagnosticField.CONSTRAINT_NAME,
        ):
            self._keep(result.error_field(part) or b"")
        if result.status == pq.ExecStatus.FATAL_ERROR:
            self.heard.states.add((result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode())

    def _keep(self, text: bytes) -> None:
        if text:
            self.heard.texts.append(text.decode("latin1"))
