from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.marking.hashing import Strings, hash_bytes, hash_int8, key_hash

int64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), int64)
def test_each_string_hashes_as_it_does_alone(values: list[bytes], seed: int) -> None:
    together = hash_bytes(Strings.of(values), seed)
    alone = [hash_bytes(Strings.of([value]), seed)[0] for value in values]
    assert together.tolist() == alone


def test_a_chained_key_depends_on_order_and_boundaries() -> None:
    def hashed(*parts: str) -> int:
        return int(key_hash([Strings.of([part.encode()]) for part in parts], 5, 6)[0])

    assert (
        len({hashed("a", "b"), hashed("b", "a"), hashed("ab", ""), hashed("", "ab"), hashed("ab")})
        == 5
    )


def test_selection_is_uniform_and_independent_between_columns() -> None:
    ids = np.arange(200_000, dtype=np.int64)
    gates = [key_hash([ids], 11 * n, 7 * n + 1) < -(2**62) * 3 // 2 for n in range(1, 5)]
    share = 1 / 8
    for gate in gates:
        assert abs(gate.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(ids))
    both = (gates[0] & gates[1]).mean()
    assert abs(both - share**2) < 4 * np.sqrt(share**2 / len(ids))


def test_a_key_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        key_hash([], 1, 2)


def test_negative_integers_of_every_width_hash_alike() -> None:
    narrow = np.array([-5], np.int16).astype(np.int64)
    assert hash_int8(narrow, 3)[0] == hash_int8(np.array([-5], np.int64), 3)[0]
