"""What the decoys of innocents say against them, drawn as they are issued: at most nothing.

The leak is made by somebody who knows how decoys are drawn, and lists the likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.decoys.identities import Site, draw_identities, learn_site
from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.names import name_lists
from pgbalise.decoys.nir import nir_13
from pgbalise.marking.keys import MasterKey
from pgbalise.tracing.decoys import SHARE, DecoySearch, decoy_e_values

BORN = date(1950, 6, 1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = 3_000


def innocents(
    site: Site,
    roles: Sequence[Role],
    taken: dict[Role, set[str]] | None = None,
    keys: int = KEYS,
    together: bool = True,
) -> list[list[IssuedDecoy]]:
    """Two decoys of one innocent under each of many master keys, or of as many innocents."""
    found = []
    owners = [(MasterKey(n.to_bytes(32, "big")), n) for n in range(keys)]
    seeds = [key.derive("decoy", "ina", m) for key, _ in owners for m in (1, 2)]
    drawn = draw_identities(
        seeds,
        roles,
        ["M"] * len(seeds),
        [BORN] * len(seeds),
        site,
        Mode.SAFE,
        "example.org",
        taken or {},
    )
    for at, (identity, spaces) in enumerate(drawn):
        owner, number = divmod(at, 2)
        name = f"ina{owner}" if together else "ina"
        found.append(IssuedDecoy(at + 1, name, number + 1, Mode.SAFE, identity, spaces, {}, NOW))
    return [found[at : at + 2] for at in range(0, len(found), 2)]


def mean_of(pairs: list[list[IssuedDecoy]], leak: pa.Table, together: bool = True) -> np.ndarray:
    """The e-value of each innocent, without what is wagered on nothing being found."""
    values: list[float] = []
    for group in [[decoy for pair in pairs for decoy in pair]] if together else pairs:
        search = DecoySearch(group)
        search.look(leak)
        names = list(dict.fromkeys(decoy.recipient for decoy in group))
        values += list(decoy_e_values(search.found(), group, names))
    return (10.0 ** np.array(values) - (1 - SHARE)) / SHARE


def check(values: np.ndarray) -> None:
    error = values.std() / np.sqrt(len(values))
    assert error < 0.25
    assert values.mean() <= 1 + 3.5 * error
    # it says something when they are there
    assert values.max() > 2
    assert values.mean() > 0.3


def test_names_that_are_family_and_given_names() -> None:
    lists = name_lists()
    both = sorted(set(lists.family) & set(lists.male))
    pairs = [f"{one} {two}" for at, one in enumerate(both) for two in both[:at]]
    leak = pa.table({"who": pairs, "born": [BORN.isoformat()] * len(pairs)})
    site = learn_site({Role.FAMILY_NAME: ["PETIT"] * 10, Role.GIVEN_NAME: ["Jean"] * 10})
    roles = (Role.FAMILY_NAME, Role.GIVEN_NAME, Role.BIRTH_DATE)
    check(mean_of(innocents(site, roles), leak))


def test_places_of_birth_that_were_there_when_the_others_were_not() -> None:
    young = [f"29005{92000 + n}12345" for n in range(1, 10) for _ in range(80)]
    old = [f"15006{75100 + n}12345" for n in range(1, 4) for _ in range(27)]
    site = learn_site({Role.NIR: [*young, *old]})
    leak = pa.table({"nir": [nir_13("M", BORN, "75101", 0)]})
    values = mean_of(innocents(site, (Role.NIR, Role.BIRTH_DATE)), leak)
    check(values)


@pytest.mark.parametrize("hyphens", [False, True])
def test_numbers_of_two_forms_that_are_the_same_number(hyphens: bool) -> None:
    numbers = range(20_000, 20_400)
    other = [f"{n // 1000}-{n % 1000:03d}" if hyphens else f"00{n}" for n in numbers]
    site = learn_site({Role.RECORD_NUMBER: [*(str(n) for n in numbers), *other]})
    leak = pa.table({"ipp": [str(n) for n in range(20_000, 20_040)]})
    check(mean_of(innocents(site, (Role.RECORD_NUMBER,)), leak))


def test_a_range_that_is_left_when_the_other_is_nearly_full() -> None:
    full = [f"{a}/{b:03d}" for a in range(100, 180) for b in range(1000)]
    free = [f"A{n}" for n in range(30_000, 30_100)]
    taken = {Role.RECORD_NUMBER: {text for text in full if not text.endswith("7")}}
    site = learn_site({Role.RECORD_NUMBER: [*full[::10], *free]})
    leak = pa.table({"ipp": free[:20]})
    check(mean_of(innocents(site, (Role.RECORD_NUMBER,), taken), leak))


def test_one_recipient_s_own_numbers_do_not_choose_what_they_are_counted_among() -> None:
    site = learn_site({Role.RECORD_NUMBER: [f"{n:06d}" for n in range(1000)]})
    leak = pa.table({"ipp": [f"{n:06d}" for n in (*range(5), *range(10, 60), *range(100, 500))]})
    check(mean_of(innocents(site, (Role.RECORD_NUMBER,), together=False), leak, together=False))
