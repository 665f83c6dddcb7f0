"""How well a policy's marks would survive on this database's own rows.

Reads a sample of a relation, and nothing else: no recipient, no key and no marked view is needed.
Copies are marked in memory with a master key that is good for nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import reduce
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from pgbalise.catalog import columns, relation_info, sample
from pgbalise.errors import EnvironmentProblem, InvalidInput, InvalidPolicy
from pgbalise.fit import fit_columns
from pgbalise.investigate import StoredRelation
from pgbalise.tracing.robustness import Plan, Progress, Rehearsal, Task, in_turn, silent, study
from pgbalise.tracing.trials import Estimate, Setting, Study

if TYPE_CHECKING:
    from pgbalise.marking.policy import Policy, Relation
    from pgbalise.session import Session

SAMPLE_ROWS: Final = 200_000
"""Rows of the relation that copies are made of, at most."""


@dataclass(frozen=True)
class Question:
    """What is asked about a policy."""

    settings: Sequence[Setting]
    relation: str | None = None
    """``schema.name``; None for the policy's only one."""
    recipients: int = 1_000
    alpha: float = 1e-6
    rows: int = 1_000
    """Rows of the copies that leak."""
    trials: int = 40
    seed: int = 1
    sample_rows: int = SAMPLE_ROWS


def evaluate(
    session: Session, policy: Policy, question: Question, progress: Progress = silent
) -> Study:
    """Mark, attack and trace copies of the database's own rows.

    Needs SELECT on the relation; writes nothing. Raise InvalidPolicy when the policy does not fit
    the relation, InvalidInput when there are too few rows or recipients to try anything.
    """
    if question.recipients < 1:
        raise InvalidInput("an evaluation needs at least one recipient")
    protected = policy.relation(question.relation)
    progress("reading rows", 0, len(question.settings))
    stored = stored_sample(session, protected, question.sample_rows, question.seed)
    plan = Plan(
        policy,
        protected.qualified,
        stored,
        [f"recipient_{number}" for number in range(1, question.recipients + 1)],
        question.alpha,
        question.seed,
        StoredRelation(session, protected).types,
    )
    return study(
        plan,
        question.settings,
        rows=question.rows,
        trials=question.trials,
        run=side_by_side,
        progress=progress,
    )


_FEW_TRIALS: Final = 100
"""Fewer are sooner done than other processes started."""

_rehearsals: list[Rehearsal] = []
"""Of a process that makes estimates for another: the one it has."""


def side_by_side(plan: Plan, tasks: Sequence[Task], few: int = _FEW_TRIALS) -> Iterable[Estimate]:
    """Make estimates in as many processes as there are processors, unless there are ``few``.

    Raises EnvironmentProblem when something killed one of them.
    """
    workers = min(os.cpu_count() or 1, len(tasks))
    if workers < 2 or sum(task.trials for task in tasks) < few:
        yield from in_turn(plan, tasks)
        return
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_prepare, initargs=(plan,)
    ) as pool:
        try:
            yield from pool.map(_estimate, tasks)
        except BrokenProcessPool:
            raise EnvironmentProblem(
                "a process of this evaluation was killed", hint="for lack of memory? lower --sample"
            ) from None


def _prepare(plan: Plan) -> None:
    _rehearsals.append(plan.rehearsal())


def _estimate(task: Task) -> Estimate:
    return task.done_in(_rehearsals[-1])


def stored_sample(session: Session, relation: Relation, rows: int, seed: int) -> pa.Table:
    """Return rows of a relation drawn at random, as text: all columns that a leak is compared with.

    Rows whose key has a NULL are left out. Raise InvalidPolicy when the relation is not there or
    its columns are not those of the policy.
    """
    info = relation_info(session, relation.schema, relation.name)
    if info is None:
        raise InvalidPolicy(f"{relation.qualified}: there is no such relation")
    there = columns(session, relation.schema, relation.name)
    fit_columns(relation, there)
    compared = StoredRelation(session, relation).types
    chosen = [column for column in there if column.name in compared]
    drawn = sample(session, info, chosen, rows, seed)
    by_column: Sequence[Sequence[str | None]] = list(zip(*drawn, strict=True)) or [()] * len(chosen)
    table = pa.table(
        {c.name: pa.array(texts, pa.string()) for c, texts in zip(chosen, by_column, strict=True)}
    )
    return table.filter(
        reduce(pc.and_, [table.column(name).is_valid() for name, _ in relation.key])
    )
