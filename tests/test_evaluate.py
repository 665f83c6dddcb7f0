"""``pgbalise evaluate`` on a real database, as a role that may only read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from pgbalise.errors import InvalidInput, InvalidPolicy
from pgbalise.evaluate import Question, evaluate, side_by_side, stored_sample
from pgbalise.evaluate_command import evaluate as command
from pgbalise.marking.policy import load_policy
from pgbalise.session import connect
from pgbalise.tracing.robustness import Plan, Task, in_turn, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgbalise.demo.cluster import ThrowawayCluster

POLICY = Path(__file__).parents[1] / "pgbalise/demo/policy.toml"


@pytest.fixture
def reader(dpi: Any, cluster: ThrowawayCluster) -> Iterator[str]:
    """A connection string of a role that may read one table and nothing else."""
    dpi.execute("CREATE ROLE evaluator LOGIN")
    dpi.execute("GRANT USAGE ON SCHEMA dpi TO evaluator")
    dpi.execute("GRANT SELECT ON dpi.patient TO evaluator")
    yield cluster.dsn(dpi.info.dbname, "evaluator")
    dpi.execute("DROP OWNED BY evaluator")


def run(*words: str) -> Any:
    return CliRunner().invoke(_app(), ["--policy", str(POLICY), "--colluders", "1", *words])


def test_a_reader_learns_what_thieves_could_do(reader: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    words = ("--relation", "dpi.patient", "--attack", "none", "--attack", "round", "--quick")
    few = ("--trials", "2", "--rows", "400", "--sample", "5000", "--dsn", reader)
    made = run(*words, *few, "--json", "--report", str(report), "--language", "fr")
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert [one["attack"] for one in found["estimates"]] == ["none", "round"]
    assert found["estimates"][0]["detection"] == 1.0
    assert 50 < found["estimates"][0]["rows_needed"] < found["estimates"][1]["rows_needed"]
    assert found["innocents_accused"] == 0
    assert found["stored"] <= 5000
    assert "Rapport de robustesse" in report.read_text("utf-8")


def test_nothing_is_written_to_the_database(reader: str, dpi: Any) -> None:
    before = dpi.execute("SELECT count(*) FROM pg_class").fetchone()
    with connect(reader) as session:
        session.fetch("SET default_transaction_read_only = on")
        chosen = settings(["none"], [1])
        question = Question(chosen, "dpi.patient", trials=1, rows=300, sample_rows=1000)
        found = evaluate(session, load_policy(POLICY.read_text("utf-8")), question)
    assert found.stored > 800
    assert dpi.execute("SELECT count(*) FROM pg_class").fetchone() == before


def test_several_processes_find_what_one_does(reader: str) -> None:
    policy = load_policy(POLICY.read_text("utf-8"))
    with connect(reader) as session:
        stored = stored_sample(session, policy.relation("dpi.patient"), 2000, 1)
    plan = Plan(policy, "dpi.patient", stored, ["a", "b", "c"], 1e-6, 1)
    tasks = [Task(one, 100, 2, True) for one in settings(["none", "mix"], [1, 2], quick=True)]
    assert list(side_by_side(plan, tasks, few=1)) == list(in_turn(plan, tasks))


def test_the_sample_is_drawn_again_alike(reader: str) -> None:
    relation = load_policy(POLICY.read_text("utf-8")).relation("dpi.patient")
    with connect(reader) as session:
        one, same, other = (stored_sample(session, relation, 500, seed) for seed in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)
    assert "family_name" in one.column_names


def test_what_cannot_be_evaluated_is_refused(reader: str, tmp_path: Path) -> None:
    for words, problem in (
        (("--attack", "magic"), InvalidInput),
        (("--colluders", "two"), InvalidInput),
        (("--alpha", "2"), InvalidInput),
        (("--language", "de"), InvalidInput),
        (("--colluders", "2", "--attack", "flip"), InvalidInput),
        ((), InvalidPolicy),
        (("--relation", "dpi.nothing"), InvalidPolicy),
    ):
        made = run(*words, "--dsn", reader)
        assert isinstance(made.exception, problem), (words, made.output)
    missing = tmp_path / "missing.toml"
    made = CliRunner().invoke(_app(), ["--policy", str(missing), "--dsn", reader])
    assert isinstance(made.exception, InvalidPolicy)


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app
