"""Identities: consistent, in the site's look, nobody's, and the same whenever they are drawn."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.decoys.identities import Site, draw_identities, learn_site, read_sex
from pgbalise.decoys.identity import Identity, Mode, Role
from pgbalise.decoys.names import name_lists
from pgbalise.decoys.traits import Spaces, TraitKind, fold, traits
from pgbalise.errors import InvalidInput

ALL = tuple(role for role in Role if role is not Role.EMPTY)
SITE = learn_site(
    {
        Role.RECORD_NUMBER: [f"8{n * 7919:08d}" for n in range(1000)],
        Role.FAMILY_NAME: ["DUPONT", "LEFÈVRE", "PETIT"] * 10,
        Role.GIVEN_NAME: ["Marie", "Éric"] * 15,
        Role.FULL_NAME: ["LEFÈVRE Marie", "PETIT Éric"] * 15,
        Role.SEX: ["Femme", "Homme"] * 15,
        Role.PHONE: ["05 61 00 00 00"] * 10,
        Role.MOBILE: ["+33612345678"] * 10,
        Role.NIR: ["285053155512345"] * 10 + ["285050912212345"] * 10,
        Role.MAIL: ["marie.dupontel@chu-exemple.fr"] * 5,
    }
)
_SEEDS = st.binary(min_size=32, max_size=32)
_BORN = st.dates(date(1915, 1, 1), date(2025, 12, 31))


def draw(
    seeds: Sequence[bytes],
    sex: str = "Femme",
    born: date | None = date(1985, 5, 12),
    *,
    roles: Sequence[Role] = ALL,
    site: Site = SITE,
    mode: Mode = Mode.SAFE,
    taken: Mapping[Role, AbstractSet[str]] | None = None,
    **more: Any,
) -> list[tuple[Identity, Spaces]]:
    count = len(seeds)
    return draw_identities(
        seeds, roles, [sex] * count, [born] * count, site, mode, "example.org", taken or {}, **more
    )


def seeds(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


@given(_SEEDS, st.sampled_from(["Femme", "Homme"]), _BORN, st.sampled_from(Mode))
def test_everything_in_an_identity_agrees(seed: bytes, sex: str, born: date, mode: Mode) -> None:
    [(identity, _)] = draw([seed], sex, born, mode=mode)
    assert set(identity) == set(ALL)
    nir = identity[Role.NIR]
    assert nir[0] == {"Homme": "1", "Femme": "2"}[sex]
    assert nir[1:5] == f"{born.year % 100:02d}{born.month:02d}"
    assert nir[5:10] == identity[Role.BIRTH_PLACE]
    assert nir[:13] == identity[Role.NIR_13]
    assert int(nir[13:]) == 97 - int(nir[:13]) % 97
    assert (nir[10:13] == "000") is (mode is Mode.SAFE)
    assert identity[Role.SEX] == sex
    assert identity[Role.BIRTH_DATE] == born.isoformat()
    names = name_lists().given("F" if sex == "Femme" else "M")
    assert identity[Role.GIVEN_NAME] in names
    assert identity[Role.FULL_NAME] == f"{identity[Role.FAMILY_NAME]} {identity[Role.GIVEN_NAME]}"
    given_part, family_part = identity[Role.MAIL].split("@")[0].split(".")
    assert given_part == fold(identity[Role.GIVEN_NAME]).replace(" ", "")
    assert family_part == fold(identity[Role.FAMILY_NAME]).replace(" ", "")
    if sex == "Homme":
        assert identity[Role.BIRTH_NAME] == identity[Role.FAMILY_NAME]


@given(_SEEDS, st.sampled_from(["F", "M", ""]), st.none() | _BORN)
def test_nothing_of_a_safe_identity_can_be_a_persons(
    seed: bytes, sex: str, born: date | None
) -> None:
    for site in (SITE, learn_site({Role.RECORD_NUMBER: ["1234567"] * 9 + ["7654321"]})):
        [(identity, _)] = draw([seed], sex, born, site=site)
        for role in (Role.PHONE, Role.MOBILE):
            digits = re.sub(r"\D", "", identity[role])
            assert digits[-9:-4] in {"19900", "26191", "35301", "46571", "53649", "63998"}
        assert identity[Role.MAIL].endswith("@example.org")
        assert identity[Role.NIR][10:13] == identity[Role.NIR_13][10:13] == "000"
        assert identity[Role.RPPS].startswith("997")
        assert identity[Role.FINESS][2] == "9"


@given(_SEEDS, st.sampled_from(["F", "M", ""]), st.none() | _BORN, st.sampled_from(Mode), st.data())
def test_spaces_are_of_the_identitys_traits(
    seed: bytes, sex: str, born: date | None, mode: Mode, data: st.DataObject
) -> None:
    roles = data.draw(st.lists(st.sampled_from(tuple(Role)), unique=True))
    [(identity, spaces)] = draw([seed], sex, born, roles=roles, mode=mode)
    assert set(identity) <= set(roles) - {Role.EMPTY}
    assert {trait.kind for trait in traits(identity)} == set(spaces)
    assert all(space >= 1 for space in spaces.values())


@given(st.lists(_SEEDS, min_size=2, max_size=6), st.data())
def test_an_identity_hangs_on_its_own_seed_only(batch: list[bytes], data: st.DataObject) -> None:
    whole = draw(batch)
    roles = data.draw(st.sets(st.sampled_from(ALL)))
    for place, seed in enumerate(batch):
        assert draw([seed]) == [whole[place]]
        [(part, _)] = draw([seed], roles=sorted(roles))
        common = set(part) - {Role.FAMILY_NAME, Role.GIVEN_NAME, Role.FULL_NAME, Role.BIRTH_NAME}
        assert {role: part[role] for role in common} == {r: whole[place][0][r] for r in common}


def test_names_do_not_hang_on_whether_there_is_mail() -> None:
    roles = [role for role in ALL if role is not Role.MAIL]
    for (with_mail, _), (without, _) in zip(
        draw(seeds(20)), draw(seeds(20), roles=roles), strict=True
    ):
        assert without == {role: with_mail[role] for role in roles}


@settings(max_examples=30)
@given(_SEEDS, st.sampled_from(Mode))
def test_what_is_taken_is_not_drawn(seed: bytes, mode: Mode) -> None:
    kinds = {
        Role.RECORD_NUMBER: TraitKind.RECORD,
        Role.NIR: TraitKind.NIR,
        Role.PHONE: TraitKind.PHONE,
        Role.MOBILE: TraitKind.PHONE,
        Role.MAIL: TraitKind.MAIL,
        Role.RPPS: TraitKind.RPPS,
    }
    taken: dict[Role, set[str]] = {role: set() for role in kinds}
    seen: set[tuple[Role, str]] = set()
    for _ in range(8):
        [(identity, spaces)] = draw([seed], mode=mode, taken=taken)
        for role in kinds:
            assert (role, identity[role]) not in seen
            seen.add((role, identity[role]))
            taken[role].add(identity[role])
    [(_, most)] = draw([seed], mode=mode)
    assert all(spaces[kind] <= most[kind] for kind in spaces)


def test_values_of_traits_are_taken_as_well() -> None:
    [(first, _)] = draw(seeds(1))
    values = {trait.kind: trait.value for trait in traits(first)}
    taken = {
        Role.PHONE: {values[TraitKind.PHONE]},
        Role.NIR: {values[TraitKind.NIR]},
        Role.MAIL: {values[TraitKind.MAIL]},
    }
    [(second, _)] = draw(seeds(1), taken=taken)
    phones = {trait.value for trait in traits(first) if trait.kind is TraitKind.PHONE}
    assert first[Role.NIR] != second[Role.NIR]
    assert first[Role.MAIL] != second[Role.MAIL]
    assert phones != {trait.value for trait in traits(second) if trait.kind is TraitKind.PHONE}


def test_nobody_real_is_drawn() -> None:
    roles = (Role.FAMILY_NAME, Role.GIVEN_NAME, Role.BIRTH_DATE)
    people = {
        trait.value
        for identity, _ in draw(seeds(200), roles=roles)
        for trait in traits(identity)
        if trait.kind is TraitKind.PERSON
    }
    for identity, spaces in draw(seeds(200), roles=roles, persons=people):
        [person] = traits(identity)
        assert person.value not in people
        assert spaces[TraitKind.PERSON] < len(name_lists().family) * len(name_lists().female)


def test_a_range_that_is_all_taken_says_so() -> None:
    everything = {f"+33{block}{n:04d}" for block in ("53649", "63998") for n in range(10_000)}
    with pytest.raises(InvalidInput, match="in use"):
        draw(seeds(1), roles=[Role.PHONE], taken={Role.PHONE: everything})


def test_spaces_are_no_more_than_what_happens() -> None:
    roles = (Role.NIR, Role.PHONE, Role.GIVEN_NAME, Role.FAMILY_NAME, Role.BIRTH_DATE)
    drawn = draw(seeds(30_000), roles=roles)
    for kind in (TraitKind.NIR, TraitKind.PHONE, TraitKind.PERSON):
        counts = Counter(
            t.value for identity, _ in drawn for t in traits(identity) if t.kind is kind
        )
        space = drawn[0][1][kind]
        # Pairs that agree: at most 1 / space of all if the space is not too large.
        pairs = sum(n * (n - 1) for n in counts.values()) / (30_000 * 29_999)
        assert pairs <= 1.15 / space, kind


def test_a_row_without_sex_gets_one_and_says_which() -> None:
    for identity, _ in draw(seeds(50), sex=""):
        sex = read_sex(identity[Role.SEX])
        assert identity[Role.SEX] in ("Femme", "Homme")
        assert identity[Role.NIR][0] == {"M": "1", "F": "2"}[sex]
        assert identity[Role.GIVEN_NAME] in name_lists().given(sex)
    assert len({identity[Role.SEX] for identity, _ in draw(seeds(50), sex="")}) == 2


def test_a_row_without_birth_date_has_none() -> None:
    [(identity, spaces)] = draw(seeds(1), born=None)
    assert Role.BIRTH_DATE not in identity
    assert TraitKind.PERSON not in spaces
    assert len(identity[Role.NIR]) == 15


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("F", "F"), ("f", "F"), ("2", "F"), ("Féminin", "F"), ("FEMME", "F"), ("female", "F"),
        ("M", "M"), ("H", "M"), ("1", "M"), ("masculin", "M"), ("Homme", "M"), ("male", "M"),
        ("", ""), ("I", ""), ("inconnu", ""), ("0", ""), ("9", ""),
    ],
)  # fmt: skip
def test_sex_is_read_as_databases_write_it(text: str, sex: str) -> None:
    assert read_sex(text) == sex


def test_married_names_come_at_the_sites_rate() -> None:
    site = learn_site(
        {
            Role.FAMILY_NAME: ["PETIT"] * 100,
            Role.BIRTH_NAME: ["PETIT"] * 70 + ["ROUX"] * 30,
            Role.SEX: ["F"] * 100,
        }
    )
    roles = (Role.FAMILY_NAME, Role.BIRTH_NAME)
    drawn = draw(seeds(1000), "F", roles=roles, site=site)
    other = sum(one[Role.FAMILY_NAME] != one[Role.BIRTH_NAME] for one, _ in drawn)
    assert 240 < other < 360


def test_a_record_number_needs_a_column_to_look_like() -> None:
    with pytest.raises(InvalidInput, match="record number"):
        draw(seeds(1), site=learn_site({}))


def test_rows_must_match() -> None:
    with pytest.raises(InvalidInput, match="for each seed"):
        draw_identities(seeds(2), ALL, ["F"], [None], SITE, Mode.SAFE, "example.org", {})


def test_a_public_mail_provider_is_refused() -> None:
    with pytest.raises(InvalidInput, match="anybody"):
        draw_identities(seeds(1), ALL, ["F"], [None], SITE, Mode.BELIEVABLE, "gmail.com", {})
