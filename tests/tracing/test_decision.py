from __future__ import annotations

import json
from math import log10

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.tracing.decision import decide, spend, threshold_log10

COUNTS = {"rows_read": 10, "rows_aligned": 9, "cells_marked": 8, "cells_used": 7}


def decided(values, *, alpha=1e-3, **changes):
    names = changes.pop("names", [f"r{index}" for index in range(len(values))])
    cells = np.arange(len(values), dtype=np.int64)
    return decide(names, np.array(values, float), cells, alpha=alpha, **{**COUNTS, **changes})


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.floats(1e-12, 0.5))
def test_accused_are_exactly_those_at_the_threshold(values, alpha):
    verdict = decided(values, alpha=alpha)
    threshold = log10(len(values)) - log10(alpha)
    assert verdict.threshold_log10 == pytest.approx(threshold)
    assert sorted(verdict.accused) == sorted(
        f"r{index}" for index, value in enumerate(values) if value >= verdict.threshold_log10
    )
    listed = [one.log10_e_value for one in verdict.verdicts]
    assert listed == sorted(values, reverse=True)
    assert all(one.cells == int(one.recipient[1:]) for one in verdict.verdicts)


def test_the_threshold_itself_accuses_and_just_below_does_not():
    threshold = threshold_log10(2, 1e-3)
    assert decided([threshold, np.nextafter(threshold, 0)]).accused == ["r0"]


def test_threshold_of_the_reference_setting():
    assert threshold_log10(10_000, 1e-9) == pytest.approx(13)


def test_json_object():
    decoys = np.array([0, 4])
    verdict = decide(
        ["a", "b"], np.array([1.5, 20.0]), np.array([3, 6]), decoys, alpha=1e-6, **COUNTS
    )
    assert json.loads(json.dumps(verdict.as_dict(), allow_nan=False)) == {
        "verdicts": [
            {"recipient": "b", "accused": True, "log10_e_value": 20.0, "cells": 6, "decoys": 4},
            {"recipient": "a", "accused": False, "log10_e_value": 1.5, "cells": 3, "decoys": 0},
        ],
        "threshold_log10": pytest.approx(log10(2e6)),
        "alpha": 1e-6,
        "recipients": 2,
        "rows": {"read": 10, "aligned": 9},
        "cells": {"marked": 8, "used": 7},
    }


def test_equal_evidence_is_listed_by_name():
    verdict = decided([1.0, 1.0, 1.0], names=["c", "a", "b"])
    assert [one.recipient for one in verdict.verdicts] == ["a", "b", "c"]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1e-9, 2.0, float("nan")])
def test_alpha_must_be_a_probability(alpha):
    with pytest.raises(InvalidInput, match="alpha"):
        decided([1.0], alpha=alpha)


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ([], {}),
        ([float("nan")], {}),
        ([float("inf")], {}),
        ([1.0, 2.0], {"names": ["a", "a"]}),
        ([1.0, 2.0], {"names": ["a"]}),
        ([1.0], {"rows_aligned": 11}),
        ([1.0], {"cells_used": 9}),
    ],
)
def test_impossible_decisions_are_refused(values, changes):
    with pytest.raises(InvalidInput):
        decided(values, **changes)


def test_all_looks_of_a_case_together_spend_its_alpha() -> None:
    parts = [spend(1e-6, look) for look in range(1, 2000)]
    assert parts[0] == pytest.approx(5e-7)
    assert sum(parts) == pytest.approx(1e-6, rel=1e-3)
    assert sum(parts) < 1e-6


@pytest.mark.parametrize(("alpha", "look"), [(0.0, 1), (1.0, 1), (1e-6, 0)])
def test_impossible_looks_are_refused(alpha, look) -> None:
    with pytest.raises(InvalidInput):
        spend(alpha, look)
