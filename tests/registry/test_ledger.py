"""The chain: what is admitted, and that every kind of tampering is found and placed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.registry.ledger import (
    Checkpoint,
    Entry,
    Fault,
    as_line,
    canonical,
    chained,
    read_line,
    signed,
    verify,
    verify_lines,
)

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
PRIVATE = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(PRIVATE).public_key().public_bytes_raw()
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(TEXT, VALUES, max_size=3)


def ledger(bodies: Sequence[Any]) -> list[Entry]:
    entries: list[Entry] = []
    for number, body in enumerate(bodies):
        at = START + timedelta(minutes=number)
        entries.append(chained(entries[-1] if entries else None, at, "extract", body))
    return entries


def checkpoints(entries: Sequence[Entry], numbers: Sequence[int]) -> list[Checkpoint]:
    return [signed(entries[n - 1], START + timedelta(days=1), PRIVATE) for n in numbers]


def rehashed(entries: Sequence[Entry]) -> list[Entry]:
    """What an attacker makes of tampered entries who writes the whole chain anew."""
    anew: list[Entry] = []
    for entry in entries:
        anew.append(chained(anew[-1] if anew else None, entry.recorded_at, entry.kind, entry.body))
    return anew


def renumbered(entries: Sequence[Entry]) -> list[Entry]:
    return [replace(entry, sequence=n) for n, entry in enumerate(entries, start=1)]


def names(faults: Sequence[Fault]) -> list[tuple[str, int, int]]:
    return [(fault.kind, fault.first, fault.last) for fault in faults]


@st.composite
def ledgers(draw: st.DrawFn, least: int = 3) -> tuple[list[Entry], list[int]]:
    """A ledger, and the numbers of the entries that checkpoints sign, the last among them."""
    entries = ledger(draw(st.lists(BODIES, min_size=least, max_size=12)))
    covered = draw(st.sets(st.integers(1, len(entries))))
    return entries, sorted(covered | {len(entries)})


def forged(entry: Entry) -> Entry:
    return replace(entry, body={**entry.body, "recipient": "somebody else"})


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value = {"\u20ac": "\x7f", "\r": '\x0f\n/"\\', "\U0001f600": [], "\ufb33": [1, None, True]}
    assert (
        canonical(value)
        == (
            '{"\\r":"\\u000f\\n/\\"\\\\","\u20ac":"\x7f","\U0001f600":[],"\ufb33":[1,null,true]}'
        ).encode()
    )


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), 2**53, "\0", "\ud800", {"\ud800": 1}, {1: 2}, b"", START]
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        canonical({"at": [value]})


def test_nesting_beyond_reason_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidInput):
        canonical(value)


def test_the_hash_is_as_documented() -> None:
    first, second = ledger([{}, {"rows": 3}])
    text = (
        'pgbalise ledger entry 1\n{"body":{"rows":3},"kind":"extract",'
        f'"previous":"{first.hash.hex()}","recorded_at":"2026-01-31T12:01:00.000000Z","sequence":2}}'
    )
    assert second.hash == hashlib.sha256(text.encode()).digest()
    assert first.previous == bytes(32)
    assert second.previous == first.hash
    assert verify([first, second], checkpoints([first, second], [2]), [PUBLIC]) == []


@settings(deadline=None)
@given(ledgers(0 + 1))
def test_a_whole_ledger_has_no_fault_also_as_lines(made: tuple[list[Entry], list[int]]) -> None:
    entries, covered = made
    signatures = checkpoints(entries, covered)
    assert verify(entries, signatures, [PUBLIC]) == []
    lines = [as_line(item) for item in [*entries, *signatures]]
    assert [read_line(line) for line in lines] == [*entries, *signatures]
    assert verify_lines(lines, [PUBLIC]) == ([], len(entries), signatures)


@settings(deadline=None)
@given(ledgers(), st.data())
def test_an_edit_names_its_entry(made: tuple[list[Entry], list[int]], data: st.DataObject) -> None:
    entries, covered = made
    n = data.draw(st.integers(1, len(entries)))
    how = data.draw(
        st.sampled_from(["body", "kind", "recorded_at", "previous", "hash"]), label="field"
    )
    change: dict[str, Any] = {
        "body": {"recipient": "somebody else"},
        "kind": "another",
        "recorded_at": START - timedelta(microseconds=1),
        "previous": b"\1" * 32,
        "hash": b"\1" * 32,
    }
    tampered = [*entries]
    tampered[n - 1] = replace(entries[n - 1], **{how: change[how]})
    assert names(verify(tampered, checkpoints(entries, covered), [PUBLIC])) == [("edited", n, n)]


@settings(deadline=None)
@given(ledgers(), st.data())
def test_an_edit_hashed_anew_names_its_entry(
    made: tuple[list[Entry], list[int]], data: st.DataObject
) -> None:
    entries, covered = made
    n = data.draw(st.integers(1, len(entries)))
    tampered = [*entries]
    before = tampered[n - 2] if n > 1 else None
    entry = forged(tampered[n - 1])
    tampered[n - 1] = chained(before, entry.recorded_at, entry.kind, entry.body)
    faults = names(verify(tampered, checkpoints(entries, covered), [PUBLIC]))
    if n < len(entries):
        assert faults == [("edited", n, n)]
        assert names(verify(tampered, [], [])) == [("edited", n, n)]
    else:
        # nothing follows that could contradict it but the checkpoint
        [(kind, first, last)] = faults
        assert (kind, last) == ("rewritten", n)
        assert first <= n


@settings(deadline=None)
@given(ledgers(), st.booleans(), st.data())
def test_a_removal_names_its_entry(
    made: tuple[list[Entry], list[int]], renumber: bool, data: st.DataObject
) -> None:
    entries, covered = made
    n = data.draw(st.integers(1, len(entries) - 1))
    tampered = entries[: n - 1] + entries[n:]
    if renumber:
        tampered = renumbered(tampered)
    assert names(verify(tampered, checkpoints(entries, covered), [PUBLIC])) == [("removed", n, n)]
    assert names(verify(tampered, [], [])) == [("removed", n, n)]


@settings(deadline=None)
@given(ledgers(), st.booleans(), BODIES, st.data())
def test_an_insertion_names_its_entry(
    made: tuple[list[Entry], list[int]], renumber: bool, body: Any, data: st.DataObject
) -> None:
    entries, covered = made
    n = data.draw(st.integers(1, len(entries)))
    before = entries[n - 2] if n > 1 else None
    stranger = chained(before, START - timedelta(days=1), "extract", body)
    tampered = [*entries[: n - 1], stranger, *entries[n - 1 :]]
    if renumber:
        tampered = renumbered(tampered)
    assert names(verify(tampered, checkpoints(entries, covered), [PUBLIC])) == [("inserted", n, n)]


@settings(deadline=None)
@given(ledgers(), st.booleans(), st.data())
def test_an_exchange_names_both_entries(
    made: tuple[list[Entry], list[int]], renumber: bool, data: st.DataObject
) -> None:
    entries, covered = made
    i, j = sorted(
        data.draw(st.lists(st.integers(1, len(entries)), min_size=2, max_size=2, unique=True))
    )
    tampered = [*entries]
    tampered[i - 1], tampered[j - 1] = tampered[j - 1], tampered[i - 1]
    if renumber:
        tampered = renumbered(tampered)
    faults = verify(tampered, checkpoints(entries, covered), [PUBLIC])
    assert names(faults) == [("reordered", i, i), ("reordered", j, j)]


@settings(deadline=None)
@given(ledgers(), st.data())
def test_an_entry_moved_elsewhere_is_named(
    made: tuple[list[Entry], list[int]], data: st.DataObject
) -> None:
    entries, covered = made
    i, j = data.draw(st.lists(st.integers(1, len(entries)), min_size=2, max_size=2, unique=True))
    if abs(i - j) < 2:
        return
    tampered = [*entries]
    tampered.insert(j - 1, tampered.pop(i - 1))
    faults = verify(renumbered(tampered), checkpoints(entries, covered), [PUBLIC])
    assert names(faults) == [("reordered", i, i)]


@settings(deadline=None)
@given(ledgers(), st.data())
def test_a_cut_tail_is_seen_through_a_checkpoint(
    made: tuple[list[Entry], list[int]], data: st.DataObject
) -> None:
    entries, covered = made
    left = data.draw(st.integers(0, len(entries) - 1))
    faults = verify(entries[:left], checkpoints(entries, covered), [PUBLIC])
    assert names(faults) == [("truncated", left + 1, len(entries))]


@settings(deadline=None)
@given(ledgers(), st.sampled_from(["edit", "remove", "insert", "exchange"]), st.data())
def test_a_chain_written_anew_is_seen_through_a_checkpoint(
    made: tuple[list[Entry], list[int]], how: str, data: st.DataObject
) -> None:
    entries, covered = made
    n = data.draw(st.integers(1, len(entries) - 1))
    tampered = [*entries]
    if how == "edit":
        tampered[n - 1] = forged(tampered[n - 1])
    elif how == "remove":
        del tampered[n - 1]
    elif how == "insert":
        tampered.insert(n - 1, forged(tampered[0]))
    else:
        tampered[n - 1], tampered[n] = tampered[n], tampered[n - 1]
    tampered = rehashed(tampered)
    assert verify(tampered, [], []) == []
    faults = verify(tampered, checkpoints(entries, covered), [PUBLIC])
    confirmed = max((at for at in covered if at < n), default=0)
    contradicted = min(at for at in covered if at >= n)
    if contradicted <= len(tampered):
        assert names(faults) == [("rewritten", confirmed + 1, contradicted)]
    else:
        assert names(faults) == [("truncated", len(tampered) + 1, len(entries))]
        if confirmed < len(tampered):
            assert f"none confirms what follows entry {confirmed}" in faults[0].detail


def test_a_checkpoint_counts_only_when_a_trusted_key_signed_it() -> None:
    entries = ledger([{}, {}, {}])
    [good] = checkpoints(entries, [2])
    late = replace(good, signed_at=good.signed_at + timedelta(seconds=1))
    moved = replace(good, sequence=3)
    stranger = signed(entries[2], START, bytes(32))
    assert names(verify(entries, [good, late], [PUBLIC])) == [("bad signature", 2, 2)]
    assert names(verify(entries, [moved], [PUBLIC])) == [("bad signature", 3, 3)]
    assert names(verify(entries, [stranger], [PUBLIC])) == [("unknown key", 3, 3)]
    # whoever rewrites the chain and signs it with a key of their own is not believed
    anew = rehashed([forged(entries[0]), *entries[1:]])
    own = signed(anew[2], START, bytes(32))
    assert names(verify(anew, [own, good], [PUBLIC])) == [
        ("rewritten", 1, 2),
        ("unknown key", 3, 3),
    ]


def test_a_line_that_cannot_be_read_is_a_fault_not_a_failure() -> None:
    entries = ledger([{"rows": 1}, {"rows": 2}, {"rows": 3}])
    lines = [as_line(entry) for entry in entries]
    twice = lines[1].replace('"kind"', '"body":{},"kind"')
    for line in ("", "{", "[]", '"x"', lines[1].replace("2}", "2.0}"), twice, "[" * 100_000):
        faults, count, _ = verify_lines([lines[0], line, lines[2]], [])
        assert count == 2
        assert ("removed", 2, 2) in names(faults)
        assert (("unreadable", 2, 2) in names(faults)) == bool(line)


def test_a_fault_is_one_line_that_names_its_entry() -> None:
    assert str(Fault("removed", 4, 6, "nothing between 3 and 7")) == (
        "entries 4 to 6: removed: nothing between 3 and 7"
    )
    assert json.dumps(Fault("edited", 4, 4, "x").as_dict())
