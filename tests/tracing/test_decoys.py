from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import TraitKind
from pgbalise.tracing.decoys import DecoySearch, decoy_e_values

SPACES = {
    TraitKind.RECORD: 1e9,
    TraitKind.NIR: 1e6,
    TraitKind.PHONE: 1e4,
    TraitKind.MAIL: 1e5,
    TraitKind.PERSON: 1e5,
}

ELODIE = {
    Role.RECORD_NUMBER: "0800123456",
    Role.FAMILY_NAME: "LE GOFF-MÉNÉZ",
    Role.GIVEN_NAME: "Élodie",
    Role.BIRTH_DATE: "1985-05-12",
    Role.NIR: "285052A00608425",
    Role.PHONE: "06 39 98 01 23",
    Role.MAIL: "elodie.legoff@example.org",
}


def a_decoy(identity: dict[Role, str], recipient: str = "a", number: int = 1) -> IssuedDecoy:
    key = {"patient_id": str(number)}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return IssuedDecoy(number, recipient, number, Mode.SAFE, identity, SPACES, key, now)


def kinds_in(columns: dict[str, list[str | None]]) -> set[str]:
    search = DecoySearch([a_decoy(ELODIE)])
    search.look(pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()}))
    return {kind.value for one in search.found() for kind in one.odds}


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({"a": ["0800123456", "1"]}, {"record"}),
        ({"a": ["800123456"]}, {"record"}),
        ({"a": ["800123456.0"]}, {"record"}),
        ({"a": ["08 00 12 34 56"]}, {"record"}),
        ({"a": ["08001234567"]}, set()),
        ({"a": ["2 85 05 2A 006 084 25"]}, {"nir"}),
        ({"a": ["285052a006084"]}, {"nir"}),
        ({"a": ["285052A00608525"]}, set()),
        ({"a": ["+33639980123"]}, {"phone"}),
        ({"a": ["0033 6 39 98 01 23"]}, {"phone"}),
        ({"a": ["+33 (0)6.39.98.01.23"]}, {"phone"}),
        ({"a": ["639980123"]}, {"phone"}),
        ({"a": [" Elodie.LeGoff@Example.ORG"]}, {"mail"}),
        ({"n": ["Le Goff Menez"], "p": ["elodie"], "d": ["12/05/1985"]}, {"person"}),
        ({"n": ["Élodie"], "p": ["LE GOFF-MÉNÉZ"], "d": ["1985-05-12"]}, {"person"}),
        ({"d": ["19850512"], "x": ["LE GOFF-MENEZ Elodie"]}, {"person"}),
        ({"n": ["Le Goff Menez"], "p": ["elodie"], "d": ["13/05/1985"]}, set()),
        ({"n": ["Le Goff Menez"], "p": ["élise"], "d": ["12/05/1985"]}, set()),
        ({"n": ["Le Goff Menez"], "p": ["elodie"]}, set()),
        ({"a": [None, ""], "b": ["x", None]}, set()),
    ],
)
def test_other_ways_of_writing_are_recognised(
    columns: dict[str, list[str | None]], kinds: set[str]
) -> None:
    assert kinds_in(columns) == kinds


def test_a_birth_date_is_read_in_both_orders_where_the_column_leaves_it_open() -> None:
    identity = ELODIE | {Role.BIRTH_DATE: "1985-12-05"}
    for written in ("05/12/1985", "12/05/1985"):
        search = DecoySearch([a_decoy(identity)])
        search.look(pa.table({"n": ["Le Goff Ménéz Élodie"], "d": [written]}))
        assert len(search.found()) == 1


def test_more_persons_of_that_day_make_it_less_telling() -> None:
    search = DecoySearch([a_decoy(ELODIE)])
    for names in ("Elodie Le Goff Menez", "Marie Dupont", "Jean Durand"):
        search.look(pa.table({"n": [names], "d": ["1985-05-12"]}))
    [found] = search.found()
    assert found.odds[TraitKind.PERSON] == pytest.approx(1e5 / 3)


def test_the_e_value_of_an_innocent_has_mean_at_most_one() -> None:
    rng = np.random.default_rng(5)
    space, trials, total = 200.0, 4_000, []
    leak = pa.table({"ipp": [f"9{n:05d}" for n in rng.choice(200, 20, replace=False)]})
    for _ in range(trials):
        drawn = rng.choice(200, 4, replace=False)
        decoys = [
            IssuedDecoy(
                place,
                "innocent",
                place + 1,
                Mode.SAFE,
                {Role.RECORD_NUMBER: f"9{n:05d}"},
                {TraitKind.RECORD: space},
                {},
                datetime(2026, 1, 1, tzinfo=UTC),
            )
            for place, n in enumerate(drawn)
        ]
        search = DecoySearch(decoys)
        search.look(leak)
        total.append(10.0 ** decoy_e_values(search.found(), decoys, ["innocent"])[0])
    values = np.array(total)
    assert values.max() > 1.5
    error = values.std() / np.sqrt(trials)
    assert values.mean() <= 1 + 4 * error
    assert values.mean() > 0.9


def test_each_further_decoy_multiplies_and_a_missing_one_costs_little() -> None:
    decoys = [a_decoy({Role.RECORD_NUMBER: f"70000000{n}"}, "thief", n) for n in range(1, 6)] + [
        a_decoy({Role.RECORD_NUMBER: "990000001"}, "other", 9)
    ]
    leak = [f"70000000{n}" for n in (1, 2, 3)] + [f"1{n:08d}" for n in range(97)]
    search = DecoySearch(decoys)
    search.look(pa.table({"ipp": leak}))
    thief, other, nobody = decoy_e_values(search.found(), decoys, ["thief", "other", "nobody"])
    assert 17 < thief < 21
    assert -0.06 < other < 0
    assert nobody == 0


def test_many_decoys_do_not_overflow() -> None:
    decoys = [a_decoy({Role.RECORD_NUMBER: f"7{n:08d}"}, "thief", n) for n in range(1, 501)]
    search = DecoySearch(decoys)
    search.look(pa.table({"ipp": [f"7{n:08d}" for n in range(1, 501)]}))
    assert np.isfinite(decoy_e_values(search.found(), decoys, ["thief"])).all()


def test_days_before_1970_and_ages_of_a_century_are_found() -> None:
    identity = ELODIE | {Role.BIRTH_DATE: date(1919, 2, 28).isoformat()}
    search = DecoySearch([a_decoy(identity)])
    search.look(pa.table({"n": ["LE GOFF MENEZ, ELODIE"], "d": ["28-02-1919"]}))
    assert len(search.found()) == 1
