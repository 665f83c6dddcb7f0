from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from pgbalise.errors import InvalidLeak
from pgbalise.leaks import open_leak
from tests.leaks.corpus import GOOD, NAMES, ROWS, SECRET, malformed, mutated, special

CORPUS = dict(malformed())


def read_all(path: Path) -> list[list[list[str | None]]]:
    with open_leak(path) as leak:
        return [
            [list(row.values()) for batch in table.batches() for row in batch.to_pylist()]
            for table in leak.tables
        ]


def one_line(problem: InvalidLeak) -> None:
    assert "\n" not in str(problem)
    assert SECRET not in str(problem)
    assert len(str(problem)) < 200


@pytest.mark.parametrize("name", CORPUS)
def test_a_malformed_file_is_refused_in_one_line_without_its_content(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(CORPUS[name])
    with pytest.raises(InvalidLeak) as caught:
        read_all(path)
    one_line(caught.value)
    assert str(caught.value).startswith(name)


def test_the_corpus_has_enough_files() -> None:
    assert len(CORPUS) >= 100


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    for path in special(tmp_path):
        with pytest.raises(InvalidLeak) as caught:
            read_all(path)
        one_line(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind != "toc"])
def test_the_good_files_that_the_malformed_ones_are_made_of_are_read(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "leak"
    path.write_bytes(GOOD[kind]())
    (rows,) = read_all(path)
    with open_leak(path) as leak:
        assert leak.tables[0].columns == tuple(NAMES)
    assert len(rows) == len(ROWS)
    assert kind == "quoted" or rows == ROWS


def mutations(kind: str, folder: Path, seeds: range) -> None:
    """Read mutations of a good file: rows or InvalidLeak, in less than ten seconds each."""
    good, path = GOOD[kind](), folder / "leak"
    for seed in seeds:
        path.write_bytes(mutated(good, random.Random(f"{kind} {seed}")))
        signal.alarm(10)
        try:
            read_all(path)
        except InvalidLeak as problem:
            one_line(problem)
        except BaseException as problem:
            raise AssertionError(f"{kind}, seed {seed}: {type(problem).__name__}") from problem
        finally:
            signal.alarm(0)


@pytest.mark.parametrize("kind", GOOD)
def test_a_mutated_file_gives_rows_or_is_refused(kind: str, tmp_path: Path) -> None:
    mutations(kind, tmp_path, range(1 if kind == "xlsx" else 60))


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOOD)
def test_two_thousand_mutated_files_give_rows_or_are_refused(kind: str, tmp_path: Path) -> None:
    # Each workbook starts a process of its own.
    mutations(kind, tmp_path, range(1_000, 1_100 if kind == "xlsx" else 3_000))
