"""Rows of a leak without a key are found again, as surely as is said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pgbalise.demo.cohort import build_cohort
from pgbalise.tracing.linkage import UNKNOWN, Cells, Field, Linker, Links

KEY, SEX, BORN, TEST, VALUE, WARD, WEIGHT = range(7)


def relation(rows: int = 4_000, seed: int = 1) -> list[Field]:
    rng = np.random.default_rng(seed)
    there = np.ones(rows, np.bool_)
    return [
        Field("key", rng.permutation(rows), there, "code"),
        Field("sex", rng.integers(2, size=rows), there, "code"),
        Field("born", rng.integers(25_000, size=rows).astype(float), there, "number", 1.0),
        Field("test", np.minimum(rng.geometric(0.1, rows), 40), there, "code"),
        Field("value", rng.lognormal(3, 1, rows).round(1), there, "number", 0.1),
        Field("ward", rng.integers(30, size=rows), there, "code"),
        Field("weight", rng.normal(75, 15, rows).round(1), there, "number"),
    ]


def leaked(fields: list[Field], rows: NDArray[np.int64], rate: float, seed: int = 2) -> list[Cells]:
    """The rows, with marks in the numbers that take them and a share of cells drawn anew."""
    rng = np.random.default_rng(seed)
    out = []
    for field in fields:
        values = field.values[rows].copy()
        if field.tolerance:
            values = values + field.tolerance * rng.integers(-1, 2, len(rows))
        hit = rng.random(len(rows)) < rate
        values[hit] = field.values[rng.integers(len(field.values), size=hit.sum())]
        out.append(Cells(values, field.valid[rows]))
    return out


def linked(fields: list[Field], leak: list[Cells]) -> Links:
    return Linker.fit(fields, leak).link(leak)


def without(fields: list[Field], *dropped: int) -> list[Field]:
    return [field for number, field in enumerate(fields) if number not in dropped]


def only(fields: list[Field], part: NDArray[np.generic]) -> list[Field]:
    return [Field(f.name, f.values[part], f.valid[part], f.kind, f.tolerance) for f in fields]


@pytest.mark.parametrize(("rate", "least"), [(0.0, 0.999), (0.1, 0.98), (0.25, 0.8)])
def test_damaged_rows_are_found_without_a_key(rate: float, least: float) -> None:
    fields = without(relation(), KEY)
    truth = np.random.default_rng(3).integers(4_000, size=1_000)
    links = linked(fields, leaked(fields, truth, rate))
    sure = links.probability >= 0.9
    assert np.mean(sure & (links.stored == truth)) >= least
    assert np.mean(links.stored[sure] != truth[sure]) <= 0.02


def test_few_rows_are_enough() -> None:
    fields = without(relation(), KEY)
    truth = np.arange(5)
    links = linked(fields, leaked(fields, truth, 0.0))
    assert links.stored.tolist() == truth.tolist()
    assert (links.probability >= 0.9).all()


def test_probabilities_are_those_of_the_cohort() -> None:
    table = build_cohort().patient
    fields = []
    for name, kind, tolerance in (
        ("sex", "code", 0.0),
        ("age", "number", 0.0),
        ("height_cm", "number", 0.0),
        ("weight_kg", "number", 0.1),
        ("bmi", "number", 0.1),
        ("deceased", "code", 0.0),
    ):
        cells = table.columns[name]
        valid = np.array([cell is not None for cell in cells])
        if kind == "number":
            values = np.array([float(cell or 0) for cell in cells])
        else:
            values = np.unique([cell or "" for cell in cells], return_inverse=True)[1]
        fields.append(Field(name, values, valid, kind, tolerance))
    rng = np.random.default_rng(4)
    known = np.flatnonzero(rng.random(len(table)) < 0.6)
    origin = rng.integers(len(table), size=2_000)
    truth = np.where(np.isin(origin, known), np.searchsorted(known, origin), -1)
    links = linked(only(fields, known), leaked(fields, origin, 0.1))
    for low, high in ((0.9, 0.99), (0.99, 1.01)):
        part = (links.probability >= low) & (links.probability < high)
        assert part.sum() > 50
        assert np.mean(links.stored[part] == truth[part]) >= low - 0.04
    assert np.mean(links.probability[truth < 0] >= 0.9) < 0.02


def test_rounded_values_still_lead_to_their_rows() -> None:
    fields = without(relation(), KEY)
    truth = np.arange(0, 4_000, 4)
    leak = leaked(fields, truth, 0.0)
    leak[BORN - 1] = Cells(np.rint(leak[BORN - 1].values / 10) * 10, leak[BORN - 1].valid)
    leak[WEIGHT - 1] = Cells(np.rint(leak[WEIGHT - 1].values / 5) * 5, leak[WEIGHT - 1].valid)
    links = linked(fields, leak)
    assert np.mean((links.stored == truth) & (links.probability >= 0.9)) > 0.97


def test_a_new_key_in_place_of_the_old_misleads_nobody() -> None:
    fields = relation()
    truth = np.random.default_rng(5).permutation(4_000)
    leak = leaked(fields, truth, 0.0)
    leak[KEY] = Cells(np.arange(4_000), leak[KEY].valid)
    linker = Linker.fit(fields, leak)
    links = linker.link(leak)
    assert linker.summary.fields[KEY].altered > 0.95
    assert linker.summary.fields[WARD].altered < 0.05
    assert np.mean((links.stored == truth) & (links.probability >= 0.9)) > 0.99


def test_rows_of_other_origin_are_not_linked() -> None:
    fields = without(relation(8_000), KEY)
    leak = leaked(fields, np.arange(3_500, 4_500), 0.05)
    linker = Linker.fit(only(fields, np.arange(4_000)), leak)
    links = linker.link(leak)
    sure = links.probability >= 0.9
    assert sure[:500].mean() > 0.95
    assert sure[500:].mean() < 0.01
    assert linker.summary.absent == pytest.approx(0.5, abs=0.1)


def test_equal_rows_share_the_probability() -> None:
    fields = without(relation(), KEY)
    thrice = only(fields, np.concatenate([np.arange(4_000), [7, 7]]))
    links = linked(thrice, leaked(fields, np.arange(100), 0.0))
    assert links.stored[7] == 7
    assert links.probability[7] == pytest.approx(1 / 3, abs=0.01)
    assert links.probability[np.arange(100) != 7].min() > 0.9


def test_the_order_of_stored_rows_does_not_matter() -> None:
    fields = without(relation(), KEY)
    order = np.random.default_rng(6).permutation(4_000)
    truth = np.arange(500)
    leak = leaked(fields, truth, 0.1)
    straight, shuffled = linked(fields, leak), linked(only(fields, order), leak)
    sure = (straight.probability >= 0.9) & (shuffled.probability >= 0.9)
    assert sure.mean() > 0.95
    assert (order[shuffled.stored[sure]] == straight.stored[sure]).all()


def test_the_same_arguments_give_the_same_links() -> None:
    fields = without(relation(), KEY)
    leak = leaked(fields, np.arange(500), 0.2)
    one, two = linked(fields, leak), linked(fields, leak)
    assert (one.stored == two.stored).all()
    assert (one.probability == two.probability).all()


def test_a_leaked_row_may_repeat() -> None:
    fields = without(relation(), KEY)
    truth = np.repeat(np.arange(50), 20)
    links = linked(fields, leaked(fields, truth, 0.05))
    assert np.mean((links.stored == truth) & (links.probability >= 0.9)) > 0.97


def test_batches_give_what_the_whole_gives() -> None:
    fields = without(relation(), KEY)
    leak = leaked(fields, np.arange(600), 0.1)
    linker = Linker.fit(fields, leak)
    whole = linker.link(leak)
    parts = [
        linker.link([Cells(c.values[at : at + 200], c.valid[at : at + 200]) for c in leak])
        for at in (0, 200, 400)
    ]
    assert np.concatenate([part.stored for part in parts]).tolist() == whole.stored.tolist()


def test_columns_that_say_nothing_do_no_harm() -> None:
    fields = without(relation(), KEY)
    leak = leaked(fields, np.arange(500), 0.0)
    there, none = np.ones(4_000, np.bool_), np.zeros(4_000, np.bool_)
    fields += [
        Field("constant", np.zeros(4_000, np.int64), there, "code"),
        Field("still", np.zeros(4_000), there, "number"),
        Field("empty", np.zeros(4_000, np.int64), none, "code"),
        Field("hollow", np.full(4_000, np.nan), there, "number"),
    ]
    leak += [Cells(f.values[:500], f.valid[:500]) for f in fields[-4:]]
    links = linked(fields, leak)
    assert np.mean((links.stored == np.arange(500)) & (links.probability >= 0.9)) > 0.99


def test_blanked_and_endless_values_count_as_missing() -> None:
    fields = without(relation(), KEY)
    leak = leaked(fields, np.arange(500), 0.0)
    leak[WARD - 1] = Cells(leak[WARD - 1].values, np.zeros(500, np.bool_))
    leak[WEIGHT - 1].values[:100] = np.inf
    leak[VALUE - 1].values[100:150] = np.nan
    links = linked(fields, leak)
    assert np.mean((links.stored == np.arange(500)) & (links.probability >= 0.9)) > 0.95


def test_unknown_texts_lead_nowhere() -> None:
    fields = [f for f in relation() if f.kind == "code"]
    leak = [Cells(np.full(50, UNKNOWN), np.ones(50, np.bool_)) for _ in fields]
    assert (linked(fields, leak).probability < 0.5).all()


def test_a_key_alone_is_enough() -> None:
    fields = relation()[:1]
    truth = np.arange(0, 4_000, 8)
    links = linked(fields, leaked(fields, truth, 0.0))
    assert (links.stored == truth).all()
    assert (links.probability >= 0.9).all()


def test_codes_may_be_sparse() -> None:
    fields = without(relation(), KEY)
    ward = fields[WARD - 1]
    fields[WARD - 1] = Field("ward", ward.values * 10**12, ward.valid, "code")
    links = linked(fields, leaked(fields, np.arange(200), 0.0))
    assert np.mean(links.stored == np.arange(200)) > 0.99


@pytest.mark.parametrize(("stored", "rows"), [(0, 3), (1, 3), (4_000, 0), (0, 0), (2, 1)])
def test_next_to_nothing_is_no_error(stored: int, rows: int) -> None:
    fields = without(relation(), KEY)
    leak = leaked(fields, np.zeros(rows, np.int64), 0.0)
    links = linked(only(fields, np.arange(stored)), leak)
    assert len(links.stored) == len(links.probability) == rows
    assert (links.stored == (-1 if not stored else 0)).all() or not rows
    assert ((links.probability >= 0) & (links.probability <= 1)).all()


def test_without_fields_there_is_nothing_to_link() -> None:
    assert len(linked([], []).stored) == 0
