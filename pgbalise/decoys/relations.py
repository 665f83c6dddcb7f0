"""Columns of a row that follow from others: an age from two dates, a ratio within rounding.

Found from the values, never from names, so that a decoy's columns agree as the real ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EXACT = 0.995
_LEAST = 20
_ROUNDED = 9
_HALF = 0.6
"""Rounding takes half a unit; what was computed from rounded numbers itself, a little more."""
_MOST = 0.97
_CLOSE = 0.05
"""A product leaves at most this share of the standard deviation of the logarithm."""


@dataclass(frozen=True)
class Years:
    """``target`` is the completed years from date ``since`` to date ``until``."""

    target: str
    since: str
    until: str


@dataclass(frozen=True)
class Days:
    """``target`` is the days from date ``since`` to date ``until``."""

    target: str
    since: str
    until: str


@dataclass(frozen=True)
class Product:
    """``target`` is about exp(``constant``) times the ``sources`` to the power of ``exponents``.

    ``hidden`` is the source that the target was computed from before it was rounded, if that
    explains the rest: what remains is then what was rounded off.
    """

    target: str
    sources: tuple[str, ...]
    exponents: tuple[int, ...]
    constant: float
    hidden: int | None = None

    def expected(self, values: Mapping[str, Floats]) -> Floats:
        """Return the logarithm of what the sources give, float64[n]; NaN where one is unknown."""
        total = np.full(len(values[self.sources[0]]), self.constant)
        for source, exponent in zip(self.sources, self.exponents, strict=True):
            known = values[source]
            total += exponent * np.log(np.where(known > 0, known, np.nan))
        return total

    def rest(self, values: Mapping[str, Floats]) -> Floats:
        """Return what the rule leaves unexplained of the target, float64[n], NaN for unknown."""
        target = np.where(values[self.target] > 0, values[self.target], np.nan)
        ratio = np.log(target) - self.expected(values)
        if self.hidden is None:
            return ratio
        source = values[self.sources[self.hidden]]
        return np.round(source * np.expm1(ratio / self.exponents[self.hidden]), _ROUNDED)

    def completed(self, values: Mapping[str, Floats], rest: Floats) -> Floats:
        """Return the target, float64[n], NaN for unknown, given the sources and ``rest``."""
        if self.hidden is None:
            return np.exp(self.expected(values) + rest)
        values = dict(values)
        name = self.sources[self.hidden]
        values[name] = np.round(values[name] + rest, _ROUNDED)
        # as people write it, weight / (height / 100)^2, to the last bit in most rows
        power = self.exponents[self.hidden]
        unit = float(f"{np.exp(-self.constant / power):.9g}")
        scaled = (values[name] / unit) ** abs(power)
        total = np.ones(len(rest))
        for source, exponent in zip(self.sources, self.exponents, strict=True):
            if source != name:
                total = total * values[source] ** float(exponent)
        return total * scaled if power > 0 else total / scaled


Rule = Years | Days | Product


def completed_years(since: Ints, until: Ints) -> Ints:
    """Return completed years between days since 1970-01-01, int64[n]: age as it is counted."""
    a, b = since.astype("datetime64[D]"), until.astype("datetime64[D]")
    month_a, month_b = a.astype("datetime64[M]"), b.astype("datetime64[M]")
    months = (month_b - month_a).astype(np.int64)
    months -= (b - month_b).astype(np.int64) < (a - month_a).astype(np.int64)
    years: Ints = months // 12
    return years


def find_rules(numbers: Mapping[str, Floats], dates: Mapping[str, Floats]) -> tuple[Rule, ...]:
    """Return the rules that hold, at most one per number, none from a number that has a rule.

    ``numbers`` and ``dates`` (days since 1970-01-01) by column, float64[n], NaN for NULL.
    """
    rules: list[Rule] = []
    for name, values in numbers.items():
        rule = _between(name, values, dates)
        if rule is not None:
            rules.append(rule)
    left = {
        name: values
        for name, values in numbers.items()
        if all(rule.target != name for rule in rules) and _varies(values)
    }
    explained: set[str] = set()
    sources: set[str] = set()
    for name in reversed(list(left)):
        if name in sources:
            continue
        others = [other for other in left if other != name and other not in explained]
        product = _product(name, left, others)
        if product is not None:
            rules.append(product)
            explained.add(name)
            sources.update(product.sources)
    return tuple(rules)


def _between(name: str, values: Floats, dates: Mapping[str, Floats]) -> Rule | None:
    for since, until in permutations(dates, 2):
        known = ~(np.isnan(values) | np.isnan(dates[since]) | np.isnan(dates[until]))
        if known.sum() < _LEAST or not _varies(values[known]):
            continue
        first = dates[since][known].astype(np.int64)
        second = dates[until][known].astype(np.int64)
        if (completed_years(first, second) == values[known]).mean() >= _EXACT:
            return Years(name, since, until)
        if (second - first == values[known]).mean() >= _EXACT:
            return Days(name, since, until)
    return None


def _varies(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    return len(known) >= _LEAST and len(np.unique(known)) > 3


def _product(name: str, numbers: Mapping[str, Floats], others: list[str]) -> Product | None:
    target = numbers[name]
    for count in (1, 2):
        for chosen in combinations(others, count):
            stack = np.stack([target, *(numbers[other] for other in chosen)])
            known = (np.nan_to_num(stack, nan=-1.0) > 0).all(axis=0)
            filled = ~np.isnan(stack).any(axis=0)
            if known.sum() < _LEAST or known.sum() < 0.99 * filled.sum():
                continue
            logs = np.log(stack[:, known])
            spread = float(logs[0].std())
            if spread < 1e-9:
                continue
            design = np.stack([*logs[1:], np.ones(logs.shape[1])], axis=1)
            fitted, *_ = np.linalg.lstsq(design, logs[0], rcond=None)
            powers = np.rint(fitted[:-1])
            if (powers == 0).any() or (np.abs(powers) > 3).any():
                continue
            rest = logs[0] - design[:, :-1] @ powers
            constant = float(np.median(rest))
            if float((rest - constant).std()) < _CLOSE * spread:
                exponents = tuple(int(power) for power in powers)
                # a factor of a change of units is a round number
                constant = float(np.log(float(f"{np.exp(constant):.4g}")))
                return _unrounded(Product(name, chosen, exponents, constant), numbers)
    return None


def _unrounded(product: Product, numbers: Mapping[str, Floats]) -> Product:
    for hidden, name in enumerate(product.sources):
        candidate = replace(product, hidden=hidden)
        rest = candidate.rest(numbers)
        known = ~np.isnan(rest)
        source = numbers[name][known]
        decimals = next((d for d in range(6) if (np.round(source, d) == source).all()), None)
        if decimals is None:
            continue
        if (np.abs(rest[known]) <= _HALF / 10.0**decimals).mean() >= _MOST:
            return candidate
    return product
