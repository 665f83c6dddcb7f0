"""How fast text is searched for decoys: 100,000 packed words on one core.

``python -m bench scan`` measures it in processor seconds, everything counted: reading the file from
the page cache, packing, searching, holding what is found against the text. The text is the
demonstration's tables as CSV and a server's log of look-ups of its patients, repeated; in the other
one every result stands beside its patient's names and birth date, of which a tenth are names that a
decoy bears too.
"""

from __future__ import annotations

import csv
import io
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any

import ahocorasick_rs
from faker.providers.person.fr_FR import Provider

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.demo.cohort import Cohort, build_cohort
from pgbalise.scan.book import Book, pack
from pgbalise.scan.opening import read
from pgbalise.scan.stream import places

DECOYS = 10_500
BYTES = 200_000_000
PASSES = 5
AUTOMATON = 20_000_000
BAR = 200.0


def measure() -> Iterator[dict[str, Any]]:
    """Yield megabytes per second, and what an automaton over the same words reaches."""
    book = Book(drawn_decoys(DECOYS))
    cohort = build_cohort()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text")
        for name, text, bar in (
            ("plain text", _tables(cohort), BAR),
            ("text with names on every line", _joined(cohort), None),
        ):
            path.write_bytes((text * (BYTES // len(text) + 1))[:BYTES])
            rates = [_rate(book, path) for _ in range(PASSES)]
            best = max(rates)
            slowest = min(rates)
            yield {
                "name": f"scan, {name}",
                "value": round(best),
                "unit": "MB/s",
                "bar": bar,
                "holds": None if bar is None else best >= bar,
                "how": f"{len(book):,} words of {DECOYS:,} decoys, best of {PASSES} passes over "
                f"{BYTES // 10**6} MB, processor seconds, one core (slowest {slowest:.0f})",
            }
            yield _automaton(book, path, name)


def _rate(book: Book, path: Path) -> float:
    begin = process_time()
    for _ in places(book, read(path)):
        pass
    return BYTES / 1e6 / (process_time() - begin)


def _automaton(book: Book, path: Path, name: str) -> dict[str, Any]:
    automaton = ahocorasick_rs.BytesAhoCorasick(
        book.words, implementation=ahocorasick_rs.Implementation.DFA
    )
    with path.open("rb") as file:
        text = file.read(AUTOMATON)
    begin = process_time()
    automaton.find_matches_as_indexes(pack(text))
    return {
        "name": f"automaton, {name}",
        "value": round(AUTOMATON / 1e6 / (process_time() - begin)),
        "unit": "MB/s",
        "bar": None,
        "holds": None,
        "how": "ahocorasick_rs (DFA) over the same packed words and text, nothing else done",
    }


def drawn_decoys(count: int) -> list[IssuedDecoy]:
    """Return decoys with every kind of trait that a patient has."""
    drawn = random.Random(1)
    issued = datetime(2026, 1, 1, tzinfo=UTC)
    found = []
    for index in range(count):
        born = date(1920, 1, 1) + timedelta(drawn.randrange(36_500))
        family = drawn.choice(Provider.last_names)
        identity = {
            Role.RECORD_NUMBER: f"8{drawn.randrange(10**9):09d}",
            Role.NIR_13: f"{drawn.choice('12')}{born:%y%m}{drawn.randrange(1, 96):02d}"
            f"{drawn.randrange(990, 1_000)}{drawn.randrange(1, 1_000):03d}",
            Role.FAMILY_NAME: family.upper(),
            Role.GIVEN_NAME: drawn.choice(Provider.first_names),
            Role.BIRTH_DATE: born.isoformat(),
            Role.MOBILE: f"063998{drawn.randrange(10**4):04d}",
            Role.PHONE: f"0199{drawn.randrange(10**6):06d}",
            Role.MAIL: f"{index}.{family.lower().replace(' ', '')}@example.org",
        }
        recipient, number = f"recipient_{index // 5}", index % 5 + 1
        found.append(IssuedDecoy(index + 1, recipient, number, Mode.SAFE, identity, {}, {}, issued))
    return found


def _tables(cohort: Cohort) -> bytes:
    target = io.StringIO()
    rows = csv.writer(target, lineterminator="\n")
    for table in cohort.tables():
        rows.writerow(table.columns)
        rows.writerows(table.rows())
    for number, patient in enumerate(cohort.patient.rows()):
        target.write(
            f"2026-01-{number % 28 + 1:02d} 10:{number % 60:02d}:00 UTC [{1_000 + number % 500}] "
            f"app@dpi LOG:  execute: SELECT * FROM dpi.patient WHERE ipp = '{patient[1]}'\n"
        )
    return target.getvalue().encode()


def _joined(cohort: Cohort) -> bytes:
    patients = {patient[0]: patient[1:6] for patient in cohort.patient.rows()}
    target = io.StringIO()
    rows = csv.writer(target, lineterminator="\n")
    rows.writerows((*result, *patients[result[1]]) for result in cohort.lab_result.rows())
    return target.getvalue().encode()
