from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.errors import InvalidKey
from pgbalise.marking.keys import MasterKey, frame, hkdf_sha256


def test_hkdf_gives_the_answer_of_rfc_5869_case_3() -> None:
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf_sha256(b"\x0b" * 22, b"", 42).hex() == okm


fields = st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=5)), max_size=4)


@given(fields, fields)
def test_different_fields_never_frame_alike(
    one: list[str | bytes], other: list[str | bytes]
) -> None:
    def raw(values: list[str | bytes]) -> list[bytes]:
        return [value.encode() if isinstance(value, str) else value for value in values]

    assert (frame(*one) == frame(*other)) == (raw(one) == raw(other))


def test_subkeys_differ_by_purpose_and_context() -> None:
    key = MasterKey(bytes(32))
    subkeys = {key.derive("a"), key.derive("b"), key.derive("a", 1), key.derive("a", "1")}
    assert len(subkeys) == 4


def test_a_key_shows_its_fingerprint_and_nothing_else() -> None:
    secret = bytes(range(32))
    shown = repr(MasterKey(secret))
    assert MasterKey(secret).fingerprint() in shown
    assert secret.hex()[:8] not in shown
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(MasterKey(secret))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidKey, match="32 bytes"):
        MasterKey(bytes(length))
