"""The whole main job, told once: from a hospital's database to the name of who leaked."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.cohort import load_cohort
from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.extract import write_extract
from pgbalise.install import install
from pgbalise.investigate import Question, investigate
from pgbalise.issuing import issue_decoys
from pgbalise.keyfile import generate_key
from pgbalise.leaks import open_leak
from pgbalise.marking.policy import RecipientClass, load_document
from pgbalise.scan.book import Book
from pgbalise.scan.scanning import scan
from pgbalise.session import connect

if TYPE_CHECKING:
    from rich.console import Console

_SITES = (
    "rennes", "brest", "quimper", "lorient", "vannes",
    "saint_brieuc", "saint_malo", "fougeres", "redon", "pontivy",
)  # fmt: skip
_PURPOSES = (
    "cohort", "registry", "vendor", "quality", "trial_a",
    "trial_b", "thesis", "billing", "vigilance", "warehouse",
)  # fmt: skip

_QUERY = (
    "SELECT result_id, patient_id, test, value, taken_at, recorded_at FROM marked.lab_result"
    " ORDER BY result_id"
)

_PATIENTS = (
    "SELECT family_name, given_name, birth_date FROM marked.patient"
    " ORDER BY family_name, given_name"
)

ALPHA = 1e-6
"""Bound on the probability that the demonstration accuses anyone wrongly."""

KEPT = 4_000
"""Rows that the thief keeps of an extract of 400,123."""


def recipient_names(count: int) -> list[str]:
    """Return the names of so many recipients: a purpose at a hospital, numbered."""
    names = [f"{purpose}_{site}" for purpose in _PURPOSES for site in _SITES]
    return [
        names[n % len(names)] + ("" if n < len(names) else f"_{n // len(names) + 1}")
        for n in range(count)
    ]


def damage(rows: pa.Table, seed: int) -> pa.Table:
    """Do to an extract (columns of text) what a thief might.

    Keep few rows, shuffle them, round half of the values to tens, cut a quarter of the times to
    the second, drop the key and another column, name the others anew, write numbers and dates the
    French way.
    """
    chance = random.Random(seed)  # noqa: S311 - a story, not a secret
    kept = chance.sample(range(rows.num_rows), min(KEPT, rows.num_rows))
    table = rows.take(pa.array(kept))
    values = [
        str(round(float(value) / 10) * 10) if chance.random() < 0.5 else value.replace(".", ",")
        for value in table.column("value").to_pylist()
    ]
    times = [
        f"{time[8:10]}/{time[5:7]}/{time[:4]} {time[11 : 19 if chance.random() < 0.25 else -3]}"
        for time in table.column("recorded_at").to_pylist()
    ]
    return pa.table(
        {
            "Patient": table.column("patient_id"),
            "Analyse": table.column("test"),
            "Résultat": pa.array(values),
            "Enregistré le": pa.array(times),
        }
    )


def _text(path: Path) -> pa.Table:
    with open_leak(path) as leak:
        [table] = leak.tables
        return pa.Table.from_batches(table.batches())


def _write(rows: pa.Table, path: Path) -> None:
    """Write what a thief publishes: semicolons, packed."""
    with pa.CompressedOutputStream(str(path), "gzip") as file:
        pyarrow.csv.write_csv(rows, file, pyarrow.csv.WriteOptions(delimiter=";"))


def tell(directory: Path, count: int, seed: int, out: Console) -> None:
    """Run the demonstration and leave its results in a folder. Raises PgbaliseError."""
    from pgbalise.report.html import html
    from pgbalise.report.text import verdict_panel

    if count < 3:
        raise InvalidInput("the demonstration needs at least 3 recipients")
    directory.mkdir(parents=True, exist_ok=True)
    key_file = directory / "master.key"
    if key_file.exists():
        key_file.unlink()
    key = generate_key(key_file)
    document = load_document((Path(__file__).parent / "policy.toml").read_text("utf-8"))
    names = recipient_names(count)
    chance = random.Random(seed)  # noqa: S311 - a story, not a secret
    chosen = chance.sample(names, 3)
    thief, gossip = chosen[:2]

    with (
        Progress(
            TextColumn("{task.description:<58}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=out,
        ) as progress,
        ThrowawayCluster() as cluster,
    ):

        def step(text: str, total: int = 1) -> TaskID:
            return progress.add_task(text, total=total)

        task = step("1 a PostgreSQL server of its own, with the extension")
        cluster.install_extension(_sql_folder())
        owner = cluster.dsn()
        progress.advance(task)

        task = step("2 the NAFLD cohort as a small patient record database")
        with connect(owner) as session:
            with session.connection.transaction():
                load_cohort(session.connection, seed=seed)
            progress.advance(task)

            task = step("3 the policy, as marked views")
            install(session)
            with session.connection.transaction():
                views = apply_policy(session, document, key)
            progress.advance(task)

            task = step(f"4 {count} recipients", count)
            with session.connection.transaction():
                for name in names:
                    session.run("CREATE ROLE %I LOGIN", name)
                enrol(session, names, RecipientClass.SECONDARY, key)
            progress.advance(task, count)

            task = step("5 five patients who do not exist, for each of them")
            with session.connection.transaction():
                decoys = issue_decoys(session, key, None, None, datetime.now(UTC)).decoys
            progress.advance(task)

        task = step("6 three of them take an extract of lab_result", 3)
        for name in chosen:
            with connect(cluster.dsn(user=name)) as session:
                write_extract(session, _QUERY, directory / f"extract-{name}.csv")
            progress.advance(task)

        task = step("7 one copy leaks, damaged, its key gone")
        stolen = _text(directory / f"extract-{thief}.csv")
        leak = directory / "leak.csv.gz"
        _write(damage(stolen, seed), leak)
        progress.advance(task)

        task = step("8 whose copy is it?")
        report = investigate(
            [leak], Question(owner, [key]), alpha=ALPHA, created_at=datetime.now(UTC)
        )
        progress.advance(task)

        task = step("9 and a copy of the stored rows, that no recipient had?")
        raw = directory / "unmarked.csv"
        with connect(owner) as session:
            write_extract(session, _QUERY.replace("marked.", "dpi."), raw)
        innocent_leak = directory / "unmarked.csv.gz"
        _write(damage(_text(raw), seed), innocent_leak)
        raw.unlink()
        innocent = investigate(
            [innocent_leak], Question(owner, [key]), alpha=ALPHA, created_at=datetime.now(UTC)
        )
        progress.advance(task)

        task = step("10 another one mails a list of names: are decoys in it?")
        names_file = directory / "patients.csv"
        with connect(cluster.dsn(user=gossip)) as session:
            write_extract(session, _PATIENTS, names_file)
        mail = directory / "mail.eml"
        mail.write_bytes(_mailed(names_file))
        seen = scan(Book(decoys), [str(mail)], BytesIO())
        progress.advance(task)

        task = step("11 whose list is it, without any mark?")
        listed = investigate(
            [names_file], Question(owner, [key]), alpha=ALPHA, created_at=datetime.now(UTC)
        )
        progress.advance(task)

        differing = _differences(directory, chosen)

    (directory / "verdict.json").write_text(json.dumps(report.verdict.as_dict(), indent=1) + "\n")
    (directory / "report.html").write_text(html(report), "utf-8")
    (directory / "rapport.html").write_text(html(report, language="fr"), "utf-8")
    out.print(f"\nviews: {', '.join(views)}", soft_wrap=True)
    out.print(f"extracts of the same 400,123 results: {differing}\n")
    out.print(verdict_panel(report))
    met = sorted({hit.decoy for hit in seen.hits if hit.certain})
    right = report.verdict.accused == [thief]
    nobody = not innocent.verdict.accused
    rang = {name.rpartition("/")[0] for name in met} == {gossip}
    by_decoys = listed.verdict.accused == [gossip]
    out.print(
        Panel(
            f"The copy was that of [bold]{thief}[/]: {'found' if right else 'NOT FOUND'}.\n"
            f"Of the unmarked copy it accuses {'nobody' if nobody else 'SOMEONE'}.\n"
            f"In {mail.name}, a list of names and birth dates, the scan meets decoys"
            f" {', '.join(met)}.\n"
            f"The list was that of [bold]{gossip}[/]: {'found' if by_decoys else 'NOT FOUND'}.\n\n"
            f"{leak}\n{directory / 'verdict.json'}\n"
            f"{directory / 'report.html'} (rapport.html in French)",
            title="what really happened",
        )
    )
    if not (right and nobody and rang and by_decoys):
        raise EnvironmentProblem(
            "the demonstration did not end as it must", hint="please report this"
        )


def _mailed(file: Path) -> bytes:
    """A mail with a file attached."""
    message = EmailMessage()
    message["From"], message["To"] = "someone@example.org", "elsewhere@example.com"
    message["Subject"] = "as agreed"
    message.set_content("Here is the list.\n")
    message.add_attachment(
        file.read_bytes(), maintype="application", subtype="octet-stream", filename=file.name
    )
    return bytes(message)


def _differences(directory: Path, names: list[str]) -> str:
    """How many cells of the rows that both were given two recipients' extracts differ in."""
    first, second = (_text(directory / f"extract-{name}.csv") for name in names[:2])
    both = first.join(second, "result_id", join_type="inner", right_suffix=" of the other")
    parts = []
    for column in ("value", "recorded_at"):
        unlike = pc.not_equal(both.column(column), both.column(f"{column} of the other"))
        parts.append(f"{pc.sum(unlike).as_py():,} cells of {column}")
    own = first.num_rows - both.num_rows
    return (
        f"{names[0]} and {names[1]} differ in {' and '.join(parts)};"
        f" {own:,} rows of {names[0]} are about patients who do not exist"
    )


def _sql_folder() -> Path:
    """The extension's source: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "sql", package / "sql"):
        if (folder / "pgbalise.control").exists():
            return folder
    raise EnvironmentProblem("the extension's source is not beside the package")
