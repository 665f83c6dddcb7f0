"""What a client gets through a relay is what it gets without one, whatever it sends."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pgbalise.wire import messages as m
from pgbalise.wire.messages import Frontend
from pgbalise.wire.relay import Relay
from pgbalise.wire.startup import ProtocolViolation
from tests.wire.recording import END, Line, Recorder, connect, fields, split

if TYPE_CHECKING:
    from collections.abc import Callable

STATEMENTS = (
    *("SELECT '{0}' FROM generate_series(1, 3)",) * 6,
    "SELECT '{0}' /* edit */ FROM generate_series(1, 2)",
    "SELECT '{0}' /* ask */",
    "SELECT '{0}' /* ask and edit */ FROM generate_series(1, 5)",
    "SELECT '{0}' /* plain */",
    "SELECT '{0}' FROM generate_series(0, 4) AS n WHERE 1 / (3 - n) < 9",
    "refuse {0}",
    "SELECT '{0}', syntax error here",
    "SELECT '{0}' FROM no_such_table",
    "COPY (SELECT '{0}' FROM generate_series(1, 4)) TO STDOUT",
    *("COPY t FROM STDIN /* {0} */",) * 3,
    "COPY v FROM STDIN /* {0} */",
    "COPY s FROM STDIN /* {0} */",
    *("BEGIN /* {0} */",) * 2,
    "COMMIT /* {0} */",
    "ROLLBACK /* {0} */",
    *("SAVEPOINT a /* {0} */",) * 2,
    *("ROLLBACK TO a /* {0} */",) * 3,
    "DEALLOCATE ALL /* {0} */",
    "DISCARD ALL /* {0} */",
    "NOTIFY here, '{0}'",
    "DO $$BEGIN RAISE NOTICE '{0}'; END$$",
    "SET application_name = '{0}'",
    "/* {0} */",
)
SEVERAL = (
    "SELECT '{0}'; SELECT '{0}' FROM generate_series(1, 2)",
    "SELECT '{0}'; SELECT 1 / 0; SELECT '{0}'",
    "COPY t FROM STDIN; COPY t FROM STDIN; SELECT '{0}'",
    "SELECT '{0}'; COPY v FROM STDIN; SELECT '{0}'",
    "BEGIN; SELECT '{0}'; COMMIT",
    ";; SELECT '{0}'; ;",
)
NAMES = (b"", b"", b"", b"s", b"t", b"s" * 62 + b"ab", b"s" * 62 + b"ac")
PORTALS = (b"", b"", b"", b"p", b"q")


def some_messages(rng: random.Random) -> list[bytes]:
    """Return what a client might say, sensible for the most part."""
    made: list[bytes] = []

    def text() -> bytes:
        return rng.choice(STATEMENTS).format(f"q{len(made)}").encode()

    def parse() -> bytes:
        return m.parse(rng.choice(NAMES), text())

    def bind() -> bytes:
        return m.bind(rng.choice(PORTALS), rng.choice(NAMES), [b"1"] * (rng.random() < 0.03))

    def execute() -> bytes:
        rows = rng.choice((0, 0, 0, 1, 2))
        return m.message(Frontend.EXECUTE, rng.choice(PORTALS) + b"\0" + rows.to_bytes(4, "big"))

    def whole() -> bytes:
        name, portal = rng.choice(NAMES), rng.choice(PORTALS)
        tail = rng.choice((m.SYNC, m.SYNC, m.FLUSH, b""))
        return m.parse(name, text()) + m.bind(portal, name, []) + m.execute(portal) + tail

    def query() -> bytes:
        several = rng.choice(SEVERAL).format(f"q{len(made)}").encode()
        return m.query(several if rng.random() < 0.3 else text())

    def name_of(kinds: int) -> bytes:
        name = rng.choice((b"S" + rng.choice(NAMES), b"P" + rng.choice(PORTALS)))
        return m.message(kinds, name + b"\0")

    def copy() -> bytes:
        data = rng.choice((b"1\n", b"1\n2\n", b"x\n", b"", b"\\.\n"))
        return m.message(Frontend.COPY_DATA, data)

    def copy_whole() -> bytes:
        statement = m.query(rng.choice(STATEMENTS[15:18]).format(f"q{len(made)}").encode())
        end = m.message(*rng.choice(((Frontend.COPY_DONE, b""), (Frontend.COPY_FAIL, b"no\0"))))
        return statement + copy() * rng.randrange(3) + end

    kinds: list[Callable[[], bytes]] = [
        *[whole] * 6, *[parse] * 3, *[bind] * 4, *[execute] * 4, *[query] * 4, *[copy] * 3,
        *[copy_whole] * 2,
        *[lambda: m.SYNC] * 6, lambda: m.FLUSH,
        lambda: name_of(Frontend.DESCRIBE), lambda: name_of(Frontend.CLOSE),
        lambda: m.message(Frontend.COPY_DONE), lambda: m.message(Frontend.COPY_FAIL, b"no\0"),
    ]  # fmt: skip
    for _ in range(rng.randrange(3, 25)):
        made.append(rng.choice(kinds)())  # noqa: PERF401 - statements are numbered by its length
    end = m.message(Frontend.COPY_FAIL, b"over\0") + m.SYNC
    return [*made, end, end, end, m.query(b"ROLLBACK"), m.query(b"SELECT '%s'" % END)]


def tagged(data: bytes) -> Counter[bytes]:
    """Count the rows that left by the tag of their statement."""
    found = (re.search(rb"q\d+", body) for kind, body in split(data) if kind in "Dd")
    return Counter(one[0] for one in found if one)


def straight(address: str, said: list[bytes]) -> Line:
    with connect(address) as line:
        line.send(b"".join(said))
        line.finish()
    return line


def relayed(address: str, said: list[bytes], rng: random.Random) -> tuple[Line, Recorder]:
    gate = Recorder(holds=1)
    with connect(address) as line:
        line.relay = Relay(gate, statement_bytes=1 << 20)
        data = b"".join(said)
        pieces = sorted(rng.randrange(len(data)) for _ in range(rng.choice((0, 2, 20))))
        for start, end in zip([0, *pieces], [*pieces, len(data)], strict=True):
            line.send(data[start:end])
            while rng.random() < 0.4:
                line.read(0.002)
        line.finish()
    return line, gate


def agree(address: str, seed: int) -> str:
    """Compare one conversation; return whether it went well."""
    rng = random.Random(seed)
    said = some_messages(rng)
    plain = straight(address, said)
    try:
        line, gate = relayed(address, said, rng)
    except ProtocolViolation as problem:
        # a client that goes on within a COPY without ending it
        if "a COPY must be ended" in str(problem) and any(b"FROM STDIN" in one for one in said):
            return "COPY not ended"
        raise
    ours, theirs = fields(line.seen), fields(plain.seen)
    if plain.closed:
        length = min(len(ours), len(theirs))
        assert ours[:length] == theirs[:length]
        return "closed by the server"
    assert ours == theirs
    assert not any(run.open for run in gate.runs)
    counted: Counter[bytes] = Counter()
    for sql, rows in gate.rows.items():
        if tag := re.search(rb"q\d+", sql):
            counted[tag[0]] += rows
    unseen = {tag for tag in tagged(line.seen) if any(b"%s' /* plain" % tag in s for s in said)}
    assert +counted == Counter({t: n for t, n in tagged(line.seen).items() if t not in unseen})
    return "the same"


def all_agree(address: str, seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        try:
            outcomes[agree(address, seed)] += 1
        except BaseException as problem:
            problem.add_note(f"seed {seed}")
            raise
    print(outcomes)
    # most conversations must reach the end for this to say anything
    assert outcomes["the same"] > len(seeds) * 0.5


def test_a_relay_changes_nothing_that_a_client_sees(server: str) -> None:
    all_agree(server, range(300))


@pytest.mark.slow
def test_a_relay_changes_nothing_in_thousands_of_conversations(server: str) -> None:
    all_agree(server, range(1000, 6000))
