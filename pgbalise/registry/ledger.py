"""The ledger's hash chain: pure functions on entries and checkpoints.

An entry is hashed over its canonical form, JSON as RFC 8785 (JCS) writes it, restricted to null,
booleans, integers within ±(2^53 - 1), strings without U+0000 and lone surrogates, lists, and
objects with such strings as keys. Floating-point numbers are refused: their spelling is where two
implementations disagree. The hash is

    SHA-256("pgbalise ledger entry 1" LF canonical JSON of
            {"body": ..., "kind": ..., "previous": hex, "recorded_at": ..., "sequence": n})

where ``recorded_at`` is UTC with six decimals (2026-01-31T12:00:00.000000Z) and ``previous`` is
the hash of entry n - 1, 64 zeros for the first. A checkpoint signs, with Ed25519,

    "pgbalise ledger checkpoint 1" LF canonical JSON of
            {"hash": hex, "sequence": n, "signed_at": ...}

An exported ledger is JSON lines: every entry, then every checkpoint, one object each, with member
``type`` (``entry`` or ``checkpoint``) and the members above; ``hash``, ``public_key`` and
``signature`` are in hexadecimal.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

from pgbalise.errors import InvalidInput

GENESIS = bytes(32)
"""What the first entry names as the hash before it."""

_ENTRY = b"pgbalise ledger entry 1\n"
_CHECKPOINT = b"pgbalise ledger checkpoint 1\n"
_LARGEST = 2**53 - 1
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SEARCHES = 2_000_000
"""Hashes that verify() may spend on finding the number an entry had before it was renumbered."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger; ``body`` is plain JSON without floating-point numbers."""

    sequence: int
    recorded_at: datetime
    kind: str
    body: Mapping[str, Any]
    previous: bytes
    hash: bytes


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement that entry ``sequence`` had this hash."""

    sequence: int
    hash: bytes
    signed_at: datetime
    public_key: bytes
    signature: bytes


@dataclass(frozen=True)
class Fault:
    """Something that was done to the ledger.

    ``first`` to ``last`` are the numbers of the entries concerned. ``rewritten`` means that a
    checkpoint contradicts a chain that is consistent in itself: at least one entry in that range
    was changed, inserted or removed, and everything after it hashed anew.
    """

    kind: Literal[
        "edited",
        "inserted",
        "removed",
        "reordered",
        "rewritten",
        "truncated",
        "unreadable",
        "bad signature",
        "unknown key",
    ]
    first: int
    last: int
    detail: str

    @property
    def of_checkpoint(self) -> bool:
        """Whether it is a checkpoint that is wrong, not an entry."""
        return self.kind in ("bad signature", "unknown key")

    def __str__(self) -> str:
        numbers = f"entry {self.first}"
        if self.kind == "unreadable":
            numbers = f"line {self.first}"
        elif self.of_checkpoint:
            numbers = f"checkpoint of entry {self.first}"
        elif self.last != self.first:
            numbers = f"entries {self.first} to {self.last}"
        return f"{numbers}: {self.kind}: {self.detail}"

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "kind": self.kind,
            "first": self.first,
            "last": self.last,
            "detail": self.detail,
        }


def canonical(value: object) -> bytes:
    """Return a value's canonical JSON; raise InvalidInput for what it does not admit."""
    try:
        text = json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidInput("a ledger entry cannot be nested that deep") from None
    return text.encode("utf-8")


def _ordered(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise InvalidInput("a ledger entry cannot hold U+0000 or half a surrogate pair")
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise InvalidInput("a ledger entry cannot hold an integer beyond ±(2^53 - 1)")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise InvalidInput("a ledger entry's objects have strings as keys")
        # the order of UTF-16 units, which is that of code points up to U+D7FF
        names = sorted(value, key=None if all(map(str.isascii, value)) else _utf16)
        if _UNSTORABLE.search("".join(names)):
            raise InvalidInput("a ledger entry cannot hold U+0000 or half a surrogate pair")
        return {name: _ordered(value[name]) for name in names}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    raise InvalidInput(f"a ledger entry cannot hold a {type(value).__name__}")


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def instant(moment: datetime) -> str:
    """Return a time as the ledger writes it: UTC, six decimals, Z. It must know its zone."""
    if moment.tzinfo is None:
        raise InvalidInput("a time in the ledger needs a time zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read_instant(text: str) -> datetime:
    """Return the time that ``instant`` wrote; raise InvalidInput for any other spelling."""
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput("a time in the ledger looks like 2026-01-31T12:00:00.000000Z") from None
    if instant(moment) != text:
        raise InvalidInput("a time in the ledger has six decimals")
    return moment


class _Hasher:
    """An entry's hash as a function of its number: ``sequence`` is the last member."""

    def __init__(
        self, recorded_at: datetime, kind: str, body: Mapping[str, Any], previous: bytes
    ) -> None:
        members = canonical(
            {
                "body": body,
                "kind": kind,
                "previous": previous.hex(),
                "recorded_at": instant(recorded_at),
            }
        )
        self._begun = hashlib.sha256(_ENTRY + members[:-1] + b',"sequence":')

    def hash(self, sequence: int) -> bytes:
        digest = self._begun.copy()
        digest.update(b"%d}" % sequence)
        return digest.digest()


def chained(
    previous: Entry | None, recorded_at: datetime, kind: str, body: Mapping[str, Any]
) -> Entry:
    """Return the entry that follows ``previous``; raise InvalidInput for what it cannot hold."""
    sequence, before = (previous.sequence + 1, previous.hash) if previous else (1, GENESIS)
    digest = _Hasher(recorded_at, kind, body, before).hash(sequence)
    return Entry(sequence, recorded_at, kind, body, before, digest)


def checkpoint_message(sequence: int, digest: bytes, signed_at: datetime) -> bytes:
    """Return the bytes that a checkpoint's signature is made of."""
    members = {"hash": digest.hex(), "sequence": sequence, "signed_at": instant(signed_at)}
    return _CHECKPOINT + canonical(members)


def signed(head: Entry, signed_at: datetime, private_key: bytes) -> Checkpoint:
    """Return a checkpoint of an entry; ``private_key`` is Ed25519's 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(private_key)
    signature = key.sign(checkpoint_message(head.sequence, head.hash, signed_at))
    public = key.public_key().public_bytes_raw()
    return Checkpoint(head.sequence, head.hash, signed_at, public, signature)


def signature_holds(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint was signed by the key that it names."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message = checkpoint_message(checkpoint.sequence, checkpoint.hash, checkpoint.signed_at)
    try:
        key = Ed25519PublicKey.from_public_bytes(checkpoint.public_key)
        key.verify(checkpoint.signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(slots=True)
class _Seen:
    """What verify() keeps of an entry: ``number`` is the one that its hash was made with."""

    place: int
    number: int
    stored: int
    sound: bool
    previous: bytes
    hash: bytes


def verify(
    entries: Iterable[Entry], checkpoints: Iterable[Checkpoint], public_keys: Sequence[bytes]
) -> list[Fault]:
    """Return what was done to a ledger, in the order of its entries; nothing when it is whole.

    ``entries`` come in the order in which they are kept. ``public_keys`` are those trusted to sign
    checkpoints (32 bytes each); with none, checkpoints are not looked at. Entries after the
    last checkpoint are only as good as the chain: whoever can rewrite all of them can remove them.
    """
    seen = list(_look_at(entries))
    trusted, faults = _trusted(checkpoints, public_keys)
    genuine, inserted = _genuine(seen, trusted)
    faults += [
        Fault("inserted", item.stored, item.stored, "no other entry builds on it")
        for item in inserted
    ]
    faults += _gaps(genuine)
    faults += _edits(genuine, trusted)
    # one that is told already needs no second fault for being out of its place
    told = {number for fault in faults for number in (fault.first, fault.last)}
    faults += [fault for fault in _moves(genuine) if fault.first not in told]
    faults += _against_checkpoints(
        genuine, trusted, [fault for fault in faults if not fault.of_checkpoint]
    )
    return sorted(faults, key=lambda fault: (fault.first, fault.last))


def _look_at(entries: Iterable[Entry]) -> Iterator[_Seen]:
    shift, budget = 0, _SEARCHES
    for place, entry in enumerate(entries, start=1):
        stored = entry.sequence
        try:
            hasher = _Hasher(entry.recorded_at, entry.kind, entry.body, entry.previous)
        except InvalidInput:
            yield _Seen(place, stored, stored, False, entry.previous, entry.hash)
            continue
        number: int | None = None
        # a whole run is renumbered by the same shift; anything else is searched for
        for guess in (stored, stored + shift):
            if hasher.hash(guess) == entry.hash:
                number = guess
                break
        if number is None and budget > 0:
            reach = range(1, max(place, min(stored, 2 * place)) + 1000)
            budget -= len(reach)
            number = next((n for n in reach if hasher.hash(n) == entry.hash), None)
        if number is None:
            yield _Seen(place, stored, stored, False, entry.previous, entry.hash)
        else:
            shift = number - stored
            yield _Seen(place, number, stored, True, entry.previous, entry.hash)


def _trusted(
    checkpoints: Iterable[Checkpoint], public_keys: Sequence[bytes]
) -> tuple[dict[int, set[bytes]], list[Fault]]:
    trusted: dict[int, set[bytes]] = {}
    faults: list[Fault] = []
    if not public_keys:
        return trusted, faults
    for checkpoint in checkpoints:
        at = checkpoint.sequence
        if checkpoint.public_key not in public_keys:
            faults.append(Fault("unknown key", at, at, "signed by a key that is not trusted"))
        elif not signature_holds(checkpoint):
            faults.append(Fault("bad signature", at, at, "the signature does not fit"))
        else:
            trusted.setdefault(at, set()).add(checkpoint.hash)
    return trusted, faults


def _genuine(
    seen: Sequence[_Seen], trusted: Mapping[int, set[bytes]]
) -> tuple[list[_Seen], list[_Seen]]:
    """Choose one entry for each number: the one that the next builds on, or that builds on."""
    claims: dict[int, list[_Seen]] = defaultdict(list)
    for item in seen:
        claims[item.number].append(item)
    built_on = {(item.number - 1, item.previous) for item in seen}
    hashes = {(item.number, item.hash) for item in seen} | {(0, GENESIS)}
    genuine, inserted = [], []
    for number in sorted(claims):
        ranked = sorted(
            claims[number],
            key=lambda item: (
                item.hash in trusted.get(item.number, set()),
                item.sound,
                (item.number, item.hash) in built_on,
                (item.number - 1, item.previous) in hashes,
                # renumbered without being hashed anew: to make room for the other
                item.number != item.stored,
                -item.place,
            ),
            reverse=True,
        )
        genuine.append(ranked[0])
        inserted += ranked[1:]
    return genuine, inserted


def _gaps(genuine: Sequence[_Seen]) -> list[Fault]:
    numbers = [0, *(item.number for item in genuine)]
    return [
        Fault("removed", low + 1, high - 1, f"nothing between {low} and {high}")
        for low, high in pairwise(numbers)
        if high > low + 1
    ]


def _edits(genuine: Sequence[_Seen], trusted: Mapping[int, set[bytes]]) -> list[Fault]:
    unsound = {item.number for item in genuine if not item.sound}
    faults = [Fault("edited", n, n, "its content does not give its hash") for n in unsound]
    broken = {
        (low.number, high.number)
        for low, high in pairwise(genuine)
        if high.number == low.number + 1 and high.previous != low.hash
    }
    broken |= {(0, 1) for item in genuine[:1] if item.number == 1 and item.previous != GENESIS}
    hashes = {item.number: item.hash for item in genuine}
    blamed: set[int] = set()
    for low, high in sorted(broken):
        if {low, high} & (unsound | blamed):
            continue
        # who was hashed anew: the one both of whose links are broken, else the one before
        certain = hashes.get(low) in trusted.get(low, set())
        name = high if low == 0 or (high, high + 1) in broken or certain else low
        blamed.add(name)
        faults.append(
            Fault("edited", name, name, "it was hashed anew: its neighbour names another hash")
        )
    return faults


def _moves(genuine: Sequence[_Seen]) -> list[Fault]:
    """Return entries out of their place that no removal and no insertion explains."""
    kept = sorted(genuine, key=lambda item: item.place)
    displaced = {at for at, item in enumerate(kept) if item.number != genuine[at].number}
    # two that changed places, or else the fewest that must have moved
    moved = displaced
    if len(displaced) != 2:
        moved = set(range(len(kept))) - _longest_rising([item.number for item in kept])
    faults = []
    for at, item in enumerate(kept):
        if at in moved:
            detail = f"it stands where entry {genuine[at].number} belongs"
        elif item.stored in (item.number, item.place):
            # renumbered to close a gap or to make room, which is told already
            continue
        else:
            detail = f"it carries number {item.stored}"
        faults.append(Fault("reordered", item.number, item.number, detail))
    return faults


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """Return the places of a longest increasing subsequence."""
    ends: list[int] = []
    at: list[int] = []
    before: list[int] = []
    for place, number in enumerate(numbers):
        where = bisect_left(ends, number)
        before.append(at[where - 1] if where else -1)
        ends[where : where + 1] = [number]
        at[where : where + 1] = [place]
    chosen = set()
    place = at[-1] if at else -1
    while place >= 0:
        chosen.add(place)
        place = before[place]
    return chosen


def _against_checkpoints(
    genuine: Sequence[_Seen], trusted: Mapping[int, set[bytes]], told: Sequence[Fault]
) -> list[Fault]:
    hashes = {item.number: item.hash for item in genuine}
    last = max(hashes, default=0)
    confirmed = 0
    for at in sorted(trusted):
        if at > last:
            detail = f"a checkpoint covers {max(trusted)} entries, {last} are there"
            if confirmed < last:
                detail += f"; none confirms what follows entry {confirmed}"
            return [Fault("truncated", last + 1, max(trusted), detail)]
        if trusted[at] == {hashes.get(at)}:
            confirmed = at
        elif not any(fault.first <= at <= fault.last for fault in told):
            detail = f"the checkpoint of entry {at} signs another hash"
            return [Fault("rewritten", confirmed + 1, at, detail)]
    return []


def as_line(item: Entry | Checkpoint) -> str:
    """Return an entry or a checkpoint as one line of an exported ledger."""
    members: dict[str, Any] = {"sequence": item.sequence, "hash": item.hash.hex()}
    if isinstance(item, Entry):
        members |= {
            "type": "entry",
            "recorded_at": instant(item.recorded_at),
            "kind": item.kind,
            "body": item.body,
            "previous": item.previous.hex(),
        }
    else:
        members |= {
            "type": "checkpoint",
            "signed_at": instant(item.signed_at),
            "public_key": item.public_key.hex(),
            "signature": item.signature.hex(),
        }
    return canonical(members).decode("utf-8")


def read_line(line: str) -> Entry | Checkpoint:
    """Return what ``as_line`` wrote; raise InvalidInput, without the line's content, otherwise."""
    try:
        members = json.loads(line, object_pairs_hook=_without_repeats, parse_float=_no_float)
        if members["type"] == "entry":
            entry = Entry(
                members["sequence"],
                read_instant(members["recorded_at"]),
                members["kind"],
                members["body"],
                _digest(members["previous"]),
                _digest(members["hash"]),
            )
            if type(entry.sequence) is not int or not isinstance(entry.kind, str):
                raise ValueError
            if not isinstance(entry.body, dict) or len(members) != 7:
                raise ValueError
            return entry
        if members["type"] != "checkpoint" or type(members["sequence"]) is not int:
            raise ValueError
        return Checkpoint(
            members["sequence"],
            _digest(members["hash"]),
            read_instant(members["signed_at"]),
            bytes.fromhex(members["public_key"]),
            bytes.fromhex(members["signature"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput("this is not a line of an exported ledger") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _no_float(_: str) -> float:
    raise ValueError


def _digest(text: str) -> bytes:
    digest = bytes.fromhex(text)
    if len(digest) != 32:
        raise ValueError
    return digest


def verify_lines(
    lines: Iterable[str], public_keys: Sequence[bytes]
) -> tuple[list[Fault], int, list[Checkpoint]]:
    """Verify an exported ledger; return the faults, the number of entries, the checkpoints."""
    checkpoints: list[Checkpoint] = []
    unreadable: list[Fault] = []
    count = 0

    def entries() -> Iterator[Entry]:
        nonlocal count
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                item = read_line(line)
            except InvalidInput as problem:
                unreadable.append(Fault("unreadable", number, number, problem.message))
                continue
            if isinstance(item, Checkpoint):
                checkpoints.append(item)
            else:
                count += 1
                yield item

    # verify() reads the entries first, and that fills the list
    faults = verify(entries(), checkpoints, public_keys)
    return unreadable + faults, count, checkpoints
