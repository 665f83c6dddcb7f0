"""Can a decoy be told from a patient? A gradient-boosted classifier tries, on rows and on patients.

As many decoys as the demonstration cohort has patients are drawn from a population fitted to it.
Half of both train the classifier, which then ranks the other half: 0.5 is guessing. The features
are what an attacker with the source code would compute: of every row its values, digits, the
weekday and clock of its times and the distances between them; of every patient, over all relations,
counts, means, spreads, ranges, order in time, repeats, what coincides and what follows from what.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.nearness import nearness
from pgbalise.decoys.population import fit_population
from pgbalise.decoys.relations import completed_years
from pgbalise.demo.cohort import Cohort, Table, build_cohort

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Named = dict[str, Floats]

SPLITS = 5
ROW_BAR, PATIENT_BAR = 0.55, 0.60
MOST_ROWS = 120_000
DAY = 86_400_000_000
_KINDS = {
    "birth_date": ColumnKind.DATE,
    "included_on": ColumnKind.DATE,
    "last_seen_on": ColumnKind.DATE,
    "diagnosed_on": ColumnKind.DATE,
    "taken_at": ColumnKind.TIMESTAMP,
    "recorded_at": ColumnKind.TIMESTAMP,
    "sex": ColumnKind.CATEGORY,
    "deceased": ColumnKind.CATEGORY,
    "test": ColumnKind.CATEGORY,
    "event": ColumnKind.CATEGORY,
}
_IDENTITY = ("patient_id", "ipp", "family_name", "given_name", "result_id", "diagnosis_id")


def measure() -> Iterator[dict[str, Any]]:
    """Yield the figures."""
    real = samples_of(build_cohort())
    begin = time.process_time()
    population = fit_population(real, b"bench")
    yield _entry("fit of the cohort", time.process_time() - begin, "s CPU", 20.0, "process_time")
    seeds = [hashlib.sha256(b"decoy %d" % number).digest() for number in range(50_000)]
    begin = time.process_time()
    many = population.draw(seeds)
    yield _entry(
        "draw of 50,000 patients with their rows",
        time.process_time() - begin,
        "s CPU",
        120.0,
        f"{sum(map(len, many)):,} rows, process_time",
    )
    drawn = population.draw(seeds[: len(real[0])])
    for place, sample in enumerate(real):
        mean, error = auc(row_features(sample), row_features(drawn[place]))
        how = f"{SPLITS} splits, standard error {error:.4f}, at most {MOST_ROWS:,} rows of each"
        yield _entry(f"AUC, rows of {sample.name}", mean, "", ROW_BAR, how)
    mean, error = auc(patient_features(real), patient_features(drawn))
    how = f"{SPLITS} splits, standard error {error:.4f}, {len(patient_features(real))} features"
    yield _entry("AUC, patients over all relations", mean, "", PATIENT_BAR, how)
    found = nearness(real, many)
    yield _entry(
        "decoys nearer to a patient than the first percentile of patients",
        found.nearer,
        "share",
        0.0,
        "50,000 decoys",
    )
    yield _entry("median distance to the nearest patient, ratio", found.median, "", None, "")
    yield _entry("fifth percentile of that distance, ratio", found.fifth, "", None, "")


def samples_of(cohort: Cohort) -> list[Sample]:
    """Return the cohort's tables without identities and keys."""
    ids = np.array(cohort.patient.columns["patient_id"], np.int64)
    samples = [Sample("dpi.patient", _columns(cohort.patient))]
    for table in cohort.tables()[1:]:
        owner = np.searchsorted(ids, np.array(table.columns["patient_id"], np.int64))
        samples.append(Sample(f"dpi.{table.name}", _columns(table), 0, owner))
    return samples


def _columns(table: Table) -> tuple[Column, ...]:
    return tuple(
        _column(name, texts) for name, texts in table.columns.items() if name not in _IDENTITY
    )


def _column(name: str, texts: list[str | None]) -> Column:
    kind = _KINDS.get(name, ColumnKind.NUMBER)
    valid = np.array([text is not None for text in texts])
    if kind is ColumnKind.DATE:
        return Column(name, kind, np.array(texts, "datetime64[D]").astype(np.int64), valid)
    if kind is ColumnKind.TIMESTAMP:
        return Column(name, kind, np.array(texts, "datetime64[us]").astype(np.int64), valid)
    if kind is ColumnKind.CATEGORY:
        names, codes = np.unique([text or "" for text in texts], return_inverse=True)
        return Column(name, kind, codes.astype(np.int64), valid, tuple(names.tolist()))
    return Column(name, kind, np.array([float(text or 0) for text in texts]), valid)


def row_features(sample: Sample) -> Named:
    """Return what can be told of each row alone, float64[n] by name, NaN for unknown."""
    features: Named = {}
    moments: Named = {}
    for column in sample.columns:
        values = np.where(column.valid, column.values.astype(np.float64), np.nan)
        name = column.name
        features[name] = values
        features[f"{name} null"] = 1.0 - column.valid
        if column.kind is ColumnKind.NUMBER:
            for power in (1, 10, 100):
                features[f"{name} digit {power}"] = np.floor(values * power) % 10
            features[f"{name} decimals"] = _decimals(values)
        elif column.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP):
            micro = values * (DAY if column.kind is ColumnKind.DATE else 1)
            moments[name] = micro
            day = np.floor(micro / DAY)
            features[f"{name} day"] = day
            features[f"{name} weekday"] = day % 7
            months = np.nan_to_num(day).astype(np.int64).astype("datetime64[D]")
            features[f"{name} month"] = months.astype("datetime64[M]").astype(np.int64) % 12
            features[f"{name} day of month"] = (months - months.astype("datetime64[M]")).astype(
                np.float64
            )
            features[f"{name} clock"] = micro % DAY
            features[f"{name} second"] = (micro % 60_000_000) / 1e6
            features[f"{name} last digits"] = micro % 1000
    for one in moments:
        for other in moments:
            if one < other:
                features[f"{one} to {other}"] = moments[other] - moments[one]
                years = completed_years(
                    (np.nan_to_num(moments[one]) // DAY).astype(np.int64),
                    (np.nan_to_num(moments[other]) // DAY).astype(np.int64),
                )
                features[f"{one} to {other} years"] = years.astype(np.float64)
    if "bmi" in features:
        ratio = features["weight_kg"] / (features["height_cm"] / 100) ** 2
        features["bmi rest"] = features["bmi"] / ratio - 1
    if "age" in features:
        features["age rest"] = features["age"] - features["birth_date to included_on years"]
    return features


def patient_features(samples: Sequence[Sample]) -> Named:
    """Return what can be told of each patient over all relations, float64[n] by name."""
    count = len(samples[0])
    features = row_features(samples[0])
    entity_days = {
        column.name: np.where(column.valid, column.values, np.nan)
        for column in samples[0].columns
        if column.kind is ColumnKind.DATE
    }
    days: list[tuple[str, Ints, Ints]] = []
    for sample in samples[1:]:
        owner = sample.parent_row
        kind = next(c for c in sample.columns if c.kind is ColumnKind.CATEGORY)
        when = next(c for c in sample.columns if c.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP))
        unit = 1.0 if when.kind is ColumnKind.DATE else float(DAY)
        moment = when.values / unit
        days.append((sample.name, owner, np.floor(moment).astype(np.int64)))
        _add_relation(features, sample, moment, count)
        for code, label in enumerate(kind.categories):
            chosen = kind.values == code
            _add_kind(
                features,
                f"{sample.name} {label}",
                sample,
                chosen,
                moment,
                entity_days,
                count,
            )
    _add_coincidences(features, days, entity_days, count)
    _add_products(features)
    return features


def _add_relation(features: Named, sample: Sample, moment: Floats, count: int) -> None:
    owner, name = sample.parent_row, sample.name
    order = np.lexsort((moment, owner))
    who, at = owner[order], moment[order]
    features[f"{name} rows"] = np.bincount(owner, minlength=count).astype(np.float64)
    day = np.floor(at)
    new_day = np.ones(len(at), bool)
    new_day[1:] = (who[1:] != who[:-1]) | (day[1:] != day[:-1])
    new_time = np.ones(len(at), bool)
    new_time[1:] = (who[1:] != who[:-1]) | (at[1:] != at[:-1])
    features[f"{name} days"] = np.bincount(who[new_day], minlength=count).astype(np.float64)
    features[f"{name} times"] = np.bincount(who[new_time], minlength=count).astype(np.float64)
    gap_of = who[new_day][1:]
    gaps = np.where(gap_of == who[new_day][:-1], np.diff(day[new_day]), np.nan)
    known = ~np.isnan(gaps)
    _add_statistics(features, f"{name} gap", gap_of[known], gaps[known], count)
    _add_statistics(features, f"{name} log gap", gap_of[known], np.log(gaps[known]), count)
    for weekday in (0, 6):
        features[f"{name} weekday {weekday}"] = _mean(who, (day % 7 == weekday) * 1.0, count)
    _add_statistics(features, f"{name} clock", who, at - day, count)
    for column in sample.columns[1:]:
        if column.kind is ColumnKind.TIMESTAMP:
            delay = column.values / DAY - moment
            if np.ptp(delay) > 0:
                _add_statistics(features, f"{name} {column.name} delay", owner, delay, count)


def _add_kind(
    features: Named,
    name: str,
    sample: Sample,
    chosen: NDArray[np.bool_],
    moment: Floats,
    entity_days: Named,
    count: int,
) -> None:
    order = np.flatnonzero(chosen)[np.lexsort((moment[chosen], sample.parent_row[chosen]))]
    who, at = sample.parent_row[order], moment[order]
    features[f"{name} rows"] = np.bincount(who, minlength=count).astype(np.float64)
    first, last = _ends(who, np.floor(at), count)
    features[f"{name} first"], features[f"{name} span"] = first, last - first
    for date, day in entity_days.items():
        features[f"{name} first - {date}"] = first - day
        features[f"{name} last - {date}"] = last - day
        features[f"{name} after {date}"] = _mean(who, (at > day[who] + 1) * 1.0, count)
        features[f"{name} on {date}"] = _mean(who, (np.floor(at) == day[who]) * 1.0, count)
    following = who[1:] == who[:-1]
    _add_statistics(features, f"{name} gap", who[1:][following], np.diff(at)[following], count)
    for column in sample.columns:
        if column.kind is not ColumnKind.NUMBER:
            continue
        values = column.values[order]
        label = f"{name} {column.name}"
        _add_statistics(features, label, who, values, count)
        step = np.diff(values)[following]
        _add_statistics(features, f"{label} step", who[1:][following], np.abs(step), count)
        features[f"{label} repeats"] = _mean(who[1:][following], (step == 0) * 1.0, count)
        features[f"{label} trend"] = _slope(who, at, values, count)
        turns = following[1:] & following[:-1]
        product = np.diff(values)[1:][turns] * np.diff(values)[:-1][turns]
        features[f"{label} turns"] = _mean(who[2:][turns], np.sign(product), count)
        features[f"{label} even"] = _mean(who, (values % 2 == 0) * 1.0, count)
        features[f"{label} ends 0"] = _mean(who, (values % 10 == 0) * 1.0, count)
        begin = np.searchsorted(who, np.arange(count)).clip(max=max(len(values) - 1, 0))
        end = (np.searchsorted(who, np.arange(count), side="right") - 1).clip(min=0)
        have = np.bincount(who, minlength=count) > 0
        if len(values):
            features[f"{label} first"] = np.where(have, values[begin], np.nan)
            features[f"{label} last"] = np.where(have, values[end], np.nan)


def _add_coincidences(
    features: Named,
    days: Sequence[tuple[str, Ints, Ints]],
    entity_days: Named,
    count: int,
) -> None:
    for name, owner, day in days:
        for date, of in entity_days.items():
            here = np.bincount(owner[day == of[owner]], minlength=count)
            features[f"{name} rows on {date}"] = here.astype(np.float64)
        for other, other_owner, other_day in days:
            if name < other:
                mine = np.unique(np.stack([owner, day], axis=1), axis=0)
                shared = {
                    tuple(pair) for pair in np.stack([other_owner, other_day], axis=1).tolist()
                }
                same = np.array([tuple(pair) in shared for pair in mine.tolist()])
                features[f"{name} days with {other}"] = _mean(mine[:, 0], same * 1.0, count)


def _add_products(features: Named) -> None:
    """Add what ties means to the patient: tree splits see a difference better than two columns."""
    means = [name for name in features if name.endswith(" value mean")]
    for name in means:
        for other in ("age", "bmi", "weight_kg"):
            features[f"{name} by {other}"] = features[name] * features[other]
            features[f"{name} over {other}"] = features[name] / np.maximum(features[other], 1)
    for place, name in enumerate(means):
        for other in means[place + 1 :]:
            features[f"{name} less {other}"] = features[name] - features[other]


def _add_statistics(features: Named, name: str, who: Ints, values: Floats, count: int) -> None:
    mean = _mean(who, values, count)
    features[f"{name} mean"] = mean
    features[f"{name} sd"] = np.sqrt(_mean(who, (values - mean[who]) ** 2, count))
    features[f"{name} min"], features[f"{name} max"] = _ends(who, values, count)


def _mean(who: Ints, values: Floats, count: int) -> Floats:
    have = np.bincount(who, minlength=count)
    total = np.bincount(who, values, minlength=count)
    return np.where(have > 0, total / np.maximum(have, 1), np.nan)


def _ends(who: Ints, values: Floats, count: int) -> tuple[Floats, Floats]:
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, who, values)
    np.maximum.at(high, who, values)
    return np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high)


def _slope(who: Ints, at: Floats, values: Floats, count: int) -> Floats:
    mean_at, mean = _mean(who, at, count), _mean(who, values, count)
    away = at - mean_at[who]
    square = _mean(who, away**2, count)
    known = square > 0
    product = _mean(who, away * (values - mean[who]), count)
    return np.where(known, product / np.where(known, square, 1), np.nan)


def _decimals(values: Floats) -> Floats:
    found = np.full(len(values), 9.0)
    for decimals in range(4, -1, -1):
        found[np.round(values, decimals) == values] = decimals
    return found


def auc(real: Named, drawn: Named, splits: int = SPLITS) -> tuple[float, float]:
    """Return the mean area under the curve on held-out rows over splits, and its standard error."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    names = [name for name in sorted(set(real) & set(drawn)) if np.isfinite(real[name]).any()]
    one, other = (_matrix(part, names) for part in (real, drawn))
    found = []
    for split in range(splits):
        random = np.random.default_rng(split)
        most = min(len(one), len(other), MOST_ROWS)
        rows = np.concatenate(
            [part[random.choice(len(part), most, replace=False)] for part in (one, other)]
        )
        label = np.repeat([0, 1], most)
        half = random.permutation(2 * most)
        train, test = half[:most], half[most:]
        model = HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.06, early_stopping=True, random_state=split
        )
        model.fit(rows[train], label[train])
        found.append(roc_auc_score(label[test], model.predict_proba(rows[test])[:, 1]))
    return float(np.mean(found)), float(
        np.std(found, ddof=1) / np.sqrt(splits)
    ) if splits > 1 else 0.0


def _matrix(features: Named, names: Sequence[str]) -> Floats:
    matrix = np.stack([features[name] for name in names], axis=1)
    return np.where(np.isfinite(matrix), matrix, np.nan)


def _entry(name: str, value: float, unit: str, bar: float | None, how: str) -> dict[str, Any]:
    holds = None if bar is None else value <= bar
    return {
        "name": f"decoys: {name}",
        "value": round(value, 4),
        "unit": unit,
        "bar": bar,
        "holds": holds,
        "how": how,
    }
