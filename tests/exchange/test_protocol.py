"""What is hashed, what is shown of it, and what an answer tells."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.decoys.identity import Role
from pgbalise.decoys.traits import Trait, TraitKind
from pgbalise.errors import InvalidInput
from pgbalise.exchange import protocol
from tests.exchange.conftest import decoy

SALT = bytes(range(16))
HASHED = protocol.hash_trait(Trait(TraitKind.NIR, "2990199000001"), SALT)
digests = st.binary(min_size=32, max_size=32)
prefixes = st.text("01", min_size=4, max_size=16)


def test_a_digest_is_scrypt_of_kind_and_value_under_the_regions_salt() -> None:
    text = b"pgbalise exchange 1\nnir:2990199000001"
    made = hashlib.scrypt(text, salt=SALT, n=16384, r=8, p=1, maxmem=1 << 26, dklen=64)
    assert HASHED.digest + HASHED.seal_key == made
    other = protocol.hash_trait(Trait(TraitKind.RPPS, "2990199000001"), SALT)
    elsewhere = protocol.hash_trait(Trait(TraitKind.NIR, "2990199000001"), bytes(16))
    assert len({HASHED.digest, other.digest, elsewhere.digest}) == 3


def test_hashing_costs_sixteen_mebibytes() -> None:
    with pytest.raises(ValueError, match="memory limit"):
        hashlib.scrypt(b"", salt=SALT, n=16384, r=8, p=1, maxmem=16 << 20, dklen=64)


@given(digest=digests, bits=st.integers(4, 16))
def test_a_digest_is_within_the_bounds_of_its_prefix_and_of_no_other(
    digest: bytes, bits: int
) -> None:
    prefix = protocol.prefix_of(digest, bits)
    assert len(prefix) == bits

    def within(text: str) -> bool:
        low, high = protocol.bounds(text)
        return low <= digest and (high is None or digest < high)

    assert within(prefix)
    flipped = prefix[:-1] + ("1" if prefix[-1] == "0" else "0")
    assert not within(flipped)


@given(st.integers(0, 50_000_000))
def test_prefixes_are_as_long_as_buckets_stay_half_full(beacons: int) -> None:
    bits = protocol.bits_for(beacons)
    assert 4 <= bits <= 16
    if bits < 16:
        assert beacons / 2**bits <= protocol.ANSWER / 2
    if bits > 4:
        assert beacons / 2**bits > protocol.ANSWER / 8


@settings(deadline=None, max_examples=30)
@given(
    beacons=st.lists(
        st.tuples(digests, st.binary(min_size=64, max_size=64)), max_size=600, unique=True
    ),
    prefix=prefixes,
)
def test_an_answer_holds_every_beacon_and_has_one_size(
    beacons: list[tuple[bytes, bytes]], prefix: str
) -> None:
    entries = protocol.answer(prefix, beacons, bytes(32))
    assert len(entries) == max(1, math.ceil(len(beacons) / 512)) * 512
    assert {digest[2:18] + seal for digest, seal in beacons} <= set(entries)
    assert {len(entry) for entry in entries} == {80}
    assert entries == sorted(entries)


def test_padding_is_the_same_each_time_and_of_a_prefix_and_secret() -> None:
    real = (HASHED.digest, protocol.seal(HASHED, "CHU"))
    once, again = (set(protocol.answer("0101", [real], b"s" * 32)) for _ in "ab")
    assert once == again
    # a new beacon replaces one entry: nothing else shows which are real
    assert len(once - set(protocol.answer("0101", [], b"s" * 32))) == 1
    assert len(once & set(protocol.answer("0111", [real], b"s" * 32))) == 1
    assert len(once & set(protocol.answer("0101", [real], b"t" * 32))) == 1


def test_padding_looks_like_entries() -> None:
    """Bytes of seals and of padding, both 64 kB, are as evenly spread as random ones are."""
    keys = (hashlib.sha512(b"%d" % n).digest() for n in range(512))
    real = [protocol.Hashed(key[:32], key[32:]) for key in keys]
    seals = b"".join(one.tag + protocol.seal(one, "CHU de Rennes") for one in real)
    for stream in (seals, b"".join(protocol.answer("0101", [], bytes(32)))):
        counts = [stream.count(byte) for byte in range(256)]
        expected = len(stream) / 256
        chi = sum((count - expected) ** 2 / expected for count in counts)
        # 255 degrees of freedom: beyond these once in a million
        assert 155 < chi < 380


@given(st.text(min_size=1, max_size=60))
def test_a_seal_opens_to_its_name_or_the_name_is_refused(name: str) -> None:
    try:
        sealed = protocol.seal(HASHED, name)
    except InvalidInput:
        assert not name.isprintable() or name != name.strip() or len(name.encode()) > 48
        return
    assert len(sealed) == 64
    assert protocol.unseal(HASHED, sealed) == name


def test_a_seal_opens_for_nobody_who_lacks_the_value() -> None:
    sealed = protocol.seal(HASHED, "CHU")
    assert protocol.unseal(replace(HASHED, seal_key=bytes(32)), sealed) is None
    assert protocol.unseal(replace(HASHED, digest=bytes(32)), sealed) is None
    assert protocol.unseal(HASHED, bytes(64)) is None
    assert protocol.unseal(HASHED, b"short") is None


def test_owners_are_those_whose_seals_open() -> None:
    forged = HASHED.tag + bytes(64)
    mine, theirs = (HASHED.tag + protocol.seal(HASHED, name) for name in ("CHU", "CH"))
    padding = protocol.answer("0101", [], bytes(32))
    assert protocol.owners(HASHED, [*padding, theirs, forged, mine]) == ["CH", "CHU"]
    assert protocol.owners(HASHED, padding) == []


@given(needed=st.sets(st.text("01", min_size=8, max_size=8), max_size=60), seed=st.integers(0))
def test_lookups_hold_what_is_needed_among_others(needed: set[str], seed: int) -> None:
    noise = (
        int.from_bytes(hashlib.sha256(b"%d %d" % (seed, n)).digest()[:8]) for n in itertools.count()
    )
    asked = protocol.lookups(needed, 8, noise)
    assert needed <= set(asked)
    assert len(asked) == len(set(asked)) == max(32, len(needed))


def test_lookups_of_a_small_region_are_all_prefixes() -> None:
    assert len(protocol.lookups({"0101"}, 4, itertools.count(1))) == 16


def test_only_traits_that_mean_something_elsewhere_are_published() -> None:
    one = decoy(1)
    assert {trait.kind for _, trait in protocol.published_traits(one)} == {
        TraitKind.NIR,
        TraitKind.PERSON,
        TraitKind.MAIL,
    }
    wide = decoy(1, phone=1e9, record=1e12, nir=9e6)
    assert {trait.kind for _, trait in protocol.published_traits(wide)} == {
        TraitKind.PHONE,
        TraitKind.PERSON,
        TraitKind.MAIL,
    }


def test_names_count_with_the_days_of_birth_that_go_with_them() -> None:
    def exchanged(names: float) -> bool:
        found = protocol.published_traits(decoy(1, person=names, nir=names))
        kinds = {trait.kind for _, trait in found}
        assert TraitKind.NIR not in kinds, "its space says already what was drawn"
        return TraitKind.PERSON in kinds

    enough = protocol.LEAST_SPACE / protocol.BIRTH_DAYS
    assert exchanged(35_200.0)
    assert exchanged(enough * 1.01)
    assert not exchanged(enough * 0.99)
    assert not exchanged(0.0)


def test_a_part_of_a_book_is_always_the_same_part() -> None:
    book = [decoy(n) for n in range(400)]
    parts = [protocol.chosen(book, percent) for percent in (1, 30, 60, 100)]
    assert 80 < len(parts[1]) < 160
    assert 190 < len(parts[2]) < 290
    assert parts[3] == book
    numbers = [{one.number for one in part} for part in parts]
    assert numbers[0] <= numbers[1] <= numbers[2]
    assert protocol.chosen(book[50:], 30) == [one for one in parts[1] if one.number >= 50]


def test_a_reference_tells_nothing_of_the_identity_and_is_never_shared() -> None:
    one = decoy(1)
    renamed = replace(one, identity={**one.identity, Role.MAIL: "other@example.org"})
    assert [r for r, _ in protocol.published_traits(one)] == [
        r for r, _ in protocol.published_traits(renamed)
    ]
    references = [r for n in range(50) for r, _ in protocol.published_traits(decoy(n))]
    assert len(set(references)) == len(references) == 150


def test_a_token_is_known_by_its_hash_only() -> None:
    token = protocol.token_text(bytes(range(32)))
    digest = protocol.token_digest(token)
    assert digest is not None
    assert len(digest) == 32
    assert token.encode() not in digest
    for other in (
        "",
        "pgbx_",
        token[:-1],
        token + "=",
        token + "\n",
        token.replace("pgbx", "xxxx"),
    ):
        assert protocol.token_digest(other) is None


@pytest.mark.parametrize("text", ["", "010", "01012", "0" * 17, "0101\n", "０１０１"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="prefix"):
        protocol.check_prefix(text)
