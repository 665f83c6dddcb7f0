"""What is drawn looks like the site's numbers and is none of them."""

import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import damm, luhn, verhoeff
from stdnum.iso7064 import mod_11_10, mod_97_10

from pgbalise.decoys.formats import Drawer, find_check, learn_format
from pgbalise.decoys.stream import Stream
from pgbalise.errors import InvalidInput


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


@settings(max_examples=60)
@given(
    st.sampled_from(["", "P", "IPP-", "80", "A0/"]),
    st.integers(4, 9),
    st.sampled_from(["", "-X", "/1"]),
    st.sets(st.integers(0, 10**4 - 1), min_size=8, max_size=60),
    st.integers(0, 2**32),
)
def test_a_drawn_number_has_the_columns_shape_and_range_and_is_new(
    prefix: str, width: int, suffix: str, numbers: set[int], number: int
) -> None:
    texts = {f"{prefix}{n:0{width}d}{suffix}" for n in numbers}
    drawn = learn_format(sorted(texts)).draw(seed(number), texts) if _room(numbers) else None
    if drawn is not None:
        match = re.fullmatch(f"{re.escape(prefix)}([0-9]{{{width}}}){re.escape(suffix)}", drawn)
        assert match is not None
        assert min(numbers) <= int(match[1]) <= max(numbers)
        assert drawn not in texts


def _room(numbers: set[int]) -> bool:
    return len(numbers) <= max(numbers) - min(numbers)


_CHECKS: dict[str, tuple[Callable[[str], str], Callable[[str], bool]]] = {
    "Luhn": (luhn.calc_check_digit, luhn.is_valid),
    "Verhoeff": (verhoeff.calc_check_digit, verhoeff.is_valid),
    "Damm": (damm.calc_check_digit, damm.is_valid),
    "ISO 7064 mod 11,10": (mod_11_10.calc_check_digit, mod_11_10.is_valid),
    "ISO 7064 mod 97-10": (mod_97_10.calc_check_digits, mod_97_10.is_valid),
    "97 less the remainder": (
        lambda body: f"{97 - int(body) % 97:02d}",
        lambda text: (int(text[:-2]) + int(text[-2:])) % 97 == 0,
    ),
}


@pytest.mark.parametrize("name", _CHECKS)
def test_check_digits_are_found_and_kept(name: str) -> None:
    make, holds = _CHECKS[name]
    bodies = [f"{37 * n * n + 100_003 * n:08d}" for n in range(60)]
    texts = [body + make(body) for body in bodies]
    found = find_check(texts)
    assert found is not None
    assert found.name == name
    learned = learn_format([f"P{text}" for text in texts])
    drawn = [learned.draw(seed(n), set()) for n in range(200)]
    assert all(holds(text[1:]) for text in drawn)
    assert len(set(drawn)) > 190
    assert learned.space <= 10**8


def test_weights_modulo_11_never_give_ten() -> None:
    def digit(body: str) -> int:
        return -sum((2 + i) * int(d) for i, d in enumerate(reversed(body))) % 11

    bodies = [f"{7919 * n + 11:06d}" for n in range(100)]
    texts = [f"{body}{digit(body)}" for body in bodies if digit(body) < 10]
    learned = learn_format(texts)
    for number in range(200):
        drawn = learned.draw(seed(number))
        assert int(drawn[-1]) == digit(drawn[:-1])


def test_a_check_that_fails_once_is_none() -> None:
    texts = [str(n) + luhn.calc_check_digit(str(n)) for n in range(10_000, 10_100)]
    wrong = texts[7][:-1] + str((int(texts[7][-1]) + 1) % 10)
    assert find_check(texts) is not None
    assert find_check([*texts, wrong]) is None


def test_few_numbers_are_no_proof_of_a_check_digit() -> None:
    assert find_check([str(n) + luhn.calc_check_digit(str(n)) for n in range(10, 25)]) is None


def test_years_before_a_number_are_those_of_the_column() -> None:
    texts = [f"{year}-{n:05d}" for year in (2017, 2018, 2021) for n in range(100, 900, 7)]
    learned = learn_format(texts)
    drawn = [learned.draw(seed(n), set(texts)) for n in range(300)]
    assert {text[:5] for text in drawn} == {"2017-", "2018-", "2021-"}
    assert all(100 <= int(text[5:]) <= 898 for text in drawn)


def test_ranges_that_lie_apart_stay_apart() -> None:
    texts = [str(n) for n in range(1_000_000, 1_030_000, 100)]
    texts += [str(n) for n in range(9_000_000, 9_010_000, 100)]
    learned = learn_format(texts)
    drawn = [int(learned.draw(seed(n), set(texts))) for n in range(400)]
    assert all(10**6 <= n < 1_030_000 or 9 * 10**6 <= n < 9_010_000 for n in drawn)
    assert 240 < sum(n < 2 * 10**6 for n in drawn) < 350


def test_lengths_come_as_often_as_in_the_column() -> None:
    learned = learn_format([str(n) for n in range(500, 2000)])
    lengths = Counter(len(learned.draw(seed(n))) for n in range(600))
    assert set(lengths) == {3, 4}
    assert 140 < lengths[3] < 260


@given(st.sets(st.integers(0, 199), min_size=1, max_size=199), st.integers(0, 2**16))
def test_of_a_dense_range_the_holes_are_drawn(holes: set[int], number: int) -> None:
    taken = {f"{n:06d}" for n in range(200) if n not in holes}
    drawer = Drawer(learn_format([f"{n:06d}" for n in range(200)]), taken)
    drawn = drawer.draw(Stream(seed(number), "x"))
    assert int(drawn) in holes
    assert 1 <= drawer.space <= len(holes)


def test_a_full_range_says_so() -> None:
    texts = [f"{n:06d}" for n in range(200)]
    with pytest.raises(InvalidInput, match="in use"):
        learn_format(texts).draw(seed(1), set(texts))


def test_a_column_without_numbers_says_so() -> None:
    with pytest.raises(InvalidInput, match="no number"):
        learn_format(["", ""])


def test_shapes_that_hardly_anyone_has_are_not_drawn() -> None:
    texts = [f"{n:07d}" for n in range(0, 70_000, 70)] + ["VIP-DUPONT"] * 3
    learned = learn_format(texts)
    assert {len(learned.draw(seed(n))) for n in range(300)} == {7}


@pytest.mark.parametrize("texts", [["12"], ["A"], ["é€-4"], ["9" * 40], ["0012", "12"]])
def test_odd_columns_are_learned(texts: list[str]) -> None:
    assert learn_format(texts).draw(seed(1))


def test_the_space_is_no_more_than_what_happens() -> None:
    texts = [f"{n:03d}" for n in range(0, 100, 3)] + [f"B{n}" for n in range(10, 90)]
    learned = learn_format(texts)
    drawn = Counter(learned.draw(seed(n)) for n in range(20_000))
    likeliest = max(drawn.values()) / 20_000
    assert learned.space <= 1.35 / likeliest
    assert learned.space <= len(drawn)
