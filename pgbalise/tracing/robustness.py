"""How well a policy's marks survive: copies marked, attacked and traced, many times over.

Everything follows from a seed, and trials share what they can: trial t has the same thieves and the
same rows under every attack, and its leak of n rows is part of its leak of more rows. So
differences between attacks, policies and sizes are not drowned by chance.

An e-value depends on one recipient only, so of N recipients the thieves and a few innocents drawn
anew for each trial are scored, against the threshold N / alpha of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from decimal import Decimal
from math import ceil
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.align import Source, joined, spread
from pgbalise.errors import InvalidInput, InvalidLeak
from pgbalise.frames import column_from_arrow, key_from_arrow, one_chunk
from pgbalise.marking.cells import carrier_secret, select
from pgbalise.marking.codes import bias, codeword, dither
from pgbalise.marking.embedding import alternatives
from pgbalise.marking.keys import MASTER_KEY_BYTES, MasterKey
from pgbalise.marking.policy import Carrier, Equivalents, Policy, Relation, Tolerance
from pgbalise.marking.types import SqlType
from pgbalise.trace import Marking, Trace, trace
from pgbalise.tracing.attacks.catalogue import ATTACKS, Context, attack_named
from pgbalise.tracing.attacks.cells import texts
from pgbalise.tracing.attacks.damage import drop_key
from pgbalise.tracing.decision import threshold_log10
from pgbalise.tracing.trials import POWER, Estimate, Setting, Study, Trial, Variant, hardest

SCORED = 20
"""Innocents scored in each trial, drawn anew."""

LINKED_ROWS = 50_000
"""A leak without its key is looked for among so many stored rows at most."""

_GALLOP = 4
"""Further than so many sizes, a search halves what is left."""

_COMPARED = 5_000
"""Stored rows by which a leak's columns are recognised."""

_FEWEST_ROWS = 8
_GRID = 1.1
"""Leak sizes that are tried grow by this factor."""

Progress = Callable[[str, int, int], None]
"""Is told what is being tried, and how many settings of how many are done."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Tell nobody about progress."""


@dataclass(frozen=True, eq=False)
class _Marks:
    """One carrier's cells, ready to be marked for anyone."""

    column: str
    position: NDArray[np.int32]
    """Of each row's cell; -1 where it carries no bit."""
    bit: NDArray[np.uint8]
    """The bit that the stored value stands for."""
    moved: pa.Array
    """What stands for the other bit, as text."""


class _Copier:
    """Marks rows of one relation as `pgbalise.frames.mark` does, in a fraction of its time."""

    def __init__(self, policy: Policy, relation: Relation, key: MasterKey, stored: pa.Table):
        self.stored = stored
        self.marks = [
            _marks(policy, relation, carrier, key, stored) for carrier in relation.carriers
        ]

    def copy(self, word: NDArray[np.uint8], rows: NDArray[np.int64]) -> pa.Table:
        """Return some of the rows as they are supplied to whoever has this codeword."""
        index = pa.array(rows)
        table = self.stored.take(index)
        for marks in self.marks:
            position = marks.position[rows]
            changed = (position >= 0) & (word[position] != marks.bit[rows])
            at = np.flatnonzero(changed)
            old = one_chunk(table.column(marks.column))
            new = pc.replace_with_mask(
                old, pa.array(changed), marks.moved.take(pa.array(rows[at])).cast(old.type)
            )
            where = table.column_names.index(marks.column)
            table = table.set_column(where, marks.column, new)
        return table


def _marks(
    policy: Policy, relation: Relation, carrier: Carrier, key: MasterKey, stored: pa.Table
) -> _Marks:
    parts, valid = key_from_arrow(stored, carrier.entity or relation.key)
    cells = select(
        carrier_secret(key, policy, relation, carrier), carrier, policy.derivation, parts
    )
    column = column_from_arrow(stored, carrier).take(cells.row)
    options = alternatives(carrier, column, cells.up)
    can = np.flatnonzero(options.markable & valid[cells.row])
    rows = cells.row[can]
    position = np.full(stored.num_rows, -1, np.int32)
    position[rows] = cells.position[can]
    bit = np.zeros(stored.num_rows, np.uint8)
    bit[rows] = options.parity[can] ^ dither(key, policy.epoch)[cells.position[can]]
    scales = None if column.scales is None else column.scales[can]
    place = np.full(stored.num_rows, -1, np.int64)
    place[rows] = np.arange(len(rows))
    written = texts(carrier, options.moved[can], scales)
    moved = written.take(pa.array(place, mask=place < 0))
    return _Marks(carrier.column, position, bit, moved)


class _Stored(Source):
    """The rows that leaks are traced against; reading them from memory takes no time."""

    def __init__(
        self, table: pa.Table, relation: Relation, declared: Mapping[str, SqlType]
    ) -> None:
        known = dict(relation.key) | {c.column: c.type for c in relation.carriers}
        text = SqlType("text")
        self.types = {
            name: declared.get(name) or known.get(name, text) for name in table.column_names
        }
        self._table = table
        self._among = table
        self._sample = spread(table, _COMPARED)
        keys = joined(table.select([name for name, _ in relation.key])).to_pylist()
        self._row = {key: row for row, key in enumerate(keys)}

    def among(self, rows: NDArray[np.int64]) -> _Stored:
        """Return the same, of which a leak without its key is compared with these rows alone."""
        if len(rows) == self._table.num_rows:
            return self
        other = copy(self)
        other._among = self._table.take(pa.array(rows))
        return other

    def sample(self) -> pa.Table:
        """Return some rows, the same ones each time."""
        return self._sample

    def having(self, keys: pa.Table) -> pa.Table:
        """Return the rows with these keys."""
        rows = [self._row[key] for key in joined(keys).to_pylist() if key in self._row]
        return self._table.take(pa.array(rows, pa.int64()))

    def everything(self) -> pa.Table:
        """Return the rows that a leak without its key is compared with."""
        return self._among


class Rehearsal:
    """One relation under one policy, whose copies are leaked and traced over and over."""

    def __init__(
        self,
        policy: Policy,
        relation: str | None,
        stored: pa.Table,
        recipients: Sequence[str],
        *,
        alpha: float,
        seed: int,
        scored: int = SCORED,
        types: Mapping[str, SqlType] | None = None,
        linked_rows: int = LINKED_ROWS,
    ) -> None:
        """``stored``: rows of the relation, all columns, as text.

        ``types``: what these columns are declared as; those not named are taken for text, except
        where the policy says better. The master key is drawn from ``seed``: it is good for nothing
        else. Raise InvalidInput when there are too few rows or recipients, or a stored value is
        not of its type.
        """
        if stored.num_rows < _FEWEST_ROWS:
            raise InvalidInput(
                f"{stored.num_rows} rows are too few to try anything",
                hint=f"at least {_FEWEST_ROWS} are needed",
            )
        self.policy = policy
        self.relation = policy.relation(relation)
        self.stored = stored.combine_chunks()
        self.recipients = tuple(recipients)
        self.alpha = alpha
        self.seed = seed
        self.scored = 0
        self.wronged = 0
        self._innocents = scored
        self._source = _Stored(self.stored, self.relation, types or {})
        self._linked_rows = linked_rows
        self._key = MasterKey(np.random.default_rng([seed, 0]).bytes(MASTER_KEY_BYTES))
        self._thresholds = bias(self._key, policy.epoch)
        self._copier = _Copier(policy, self.relation, self._key, self.stored)
        self._whole = Context(self.relation, self.stored, same_rows=True)
        self._last: tuple[object, pa.Table] | None = None
        sizes: list[int] = []
        size = float(_FEWEST_ROWS)
        while size < stored.num_rows:
            sizes.append(round(size))
            size = max(size * _GRID, size + 1)
        self.sizes = (*sizes, stored.num_rows)

    def trial(self, setting: Setting, number: int, rows: int) -> Trial:
        """Leak copies of ``rows`` rows, attacked, and trace what becomes of them."""
        return self._trial(setting, number, rows, None)[0]

    def _trial(
        self, setting: Setting, number: int, rows: int, given: Mapping[str, str | None] | None
    ) -> tuple[Trial, Mapping[str, str | None]]:
        """Return a trial and what the leak's columns were taken for, unless that is given."""
        rng = np.random.default_rng([self.seed, 1, number])
        people = rng.permutation(len(self.recipients))
        order = rng.permutation(self.stored.num_rows)
        if setting.colluders > len(people):
            raise InvalidInput(f"{setting.colluders} thieves among {len(people)} recipients")
        thieves = tuple(self.recipients[n] for n in people[: setting.colluders])
        suspects = thieves + tuple(
            self.recipients[n] for n in people[setting.colluders :][: self._innocents]
        )
        leak = self._leak(setting, number, thieves, order, rows)
        if setting.attack.keeps_key and not setting.keyed:
            leak = drop_key(leak, self.relation)
        source = self._source.among(np.sort(order[: max(self._linked_rows, leak.num_rows)]))
        marking = Marking(self.policy, self.relation, self._key, source, suspects)
        self.scored += len(suspects) - len(thieves)
        try:
            # the threshold is N / alpha: that of all recipients
            share = len(suspects) / len(self.recipients)
            found = trace(leak, [marking], alpha=self.alpha * share, given=given)
        except InvalidLeak:
            return Trial(thieves, (), False, 0, -np.inf, {}), {}
        verdict = found.verdict
        accused = tuple(verdict.accused)
        self.wronged += len(set(accused) - set(thieves))
        trial = Trial(
            thieves,
            accused,
            True,
            verdict.cells_used,
            max(v.log10_e_value for v in verdict.verdicts if v.recipient in thieves),
            self._decades(found, thieves[0]),
        )
        columns = found.alignments[0].mapping.columns
        return trial, {one.leak_column: one.column for one in columns}

    def _leak(
        self,
        setting: Setting,
        number: int,
        thieves: Sequence[str],
        order: NDArray[np.int64],
        rows: int,
    ) -> pa.Table:
        attack = setting.attack
        chance = np.random.default_rng([self.seed, 2, number, crc32(attack.name.encode())])
        words = [codeword(self._key, name, self.policy.epoch, self._thresholds) for name in thieves]
        kept = order[:rows]
        if not attack.whole:
            copies = [self._copier.copy(word, kept) for word in words]
            others = self.stored.take(pa.array(order[rows : 2 * rows]))
            context = replace(self._whole, others=others, same_rows=False)
            return attack.apply(copies, context, chance, setting.strength)
        if self._last is None or self._last[0] != (setting, number):
            everything = np.arange(self.stored.num_rows)
            copies = [self._copier.copy(word, everything) for word in words]
            made = attack.apply(copies, self._whole, chance, setting.strength)
            self._last = ((setting, number), made)
        return self._last[1].take(pa.array(kept))

    def _decades(self, found: Trace, thief: str) -> dict[str, float]:
        """By carrier: what its cells add to the log10 e-value of a thief who acted alone."""
        word = codeword(self._key, thief, self.policy.epoch, self._thresholds)
        share = self._thresholds / 65536.0
        out = {}
        for _, part in found.carriers:
            at = part.evidence.position
            log0, log1 = part.evidence.log_likelihood0, part.evidence.log_likelihood1
            # no cell is trusted more than this: a symbol may be wrong for any reason
            log0, log1 = (np.maximum(one, np.maximum(log0, log1) - 7.0) for one in (log0, log1))
            mean = np.logaddexp(np.log(share[at]) + log1, np.log1p(-share[at]) + log0)
            gain = np.where(word[at] == 1, log1, log0) - mean
            out[part.carrier.column] = float(gain.sum() / np.log(10.0))
        return out

    def estimate(self, setting: Setting, rows: int, trials: int, *, sizes: bool) -> Estimate:
        """Try a setting: ``trials`` leaks of ``rows`` rows, and if ``sizes`` of other sizes too."""
        rows = min(rows, self.stored.num_rows)
        scored, wronged = self.scored, self.wronged
        # leaks of one trial have the same columns, whatever their size: recognised once
        done = [self._trial(setting, number, rows, None) for number in range(trials)]
        out = Estimate(setting, rows, tuple(trial for trial, _ in done))
        if sizes:
            found = self._sizes(out, [given for _, given in done])
            out = replace(out, sizes=found, most=self.sizes[-1])
        return replace(out, scored=self.scored - scored, wronged=self.wronged - wronged)

    def _sizes(
        self, known: Estimate, given: Sequence[Mapping[str, str | None]]
    ) -> tuple[int | None, ...]:
        trials = len(known.trials)
        found: list[int | None] = []
        allowed = trials - ceil(POWER * trials - 1e-9)
        for number, trial in enumerate(known.trials):
            least = self._least(known.setting, number, known.rows, trial, given[number])
            found.append(None if least is None else self.sizes[least])
            if found.count(None) > allowed:
                break
        reached = sorted(size for size in found if size is not None)
        return (*reached, *(None,) * (trials - len(reached)))

    def _least(
        self,
        setting: Setting,
        number: int,
        rows: int,
        tried: Trial,
        given: Mapping[str, str | None],
    ) -> int | None:
        """Index of the smallest leak that names a thief, from what came of one of ``rows`` rows.

        Evidence grows with the rows of nested leaks, so that names once found stay found, but for
        the last few cells. It grows about in proportion, which says where to look next.
        """
        wanted = threshold_log10(len(self.recipients), self.alpha)
        last = len(self.sizes) - 1
        below = int(np.searchsorted(self.sizes, rows)) - 1 if not tried.named else -1
        above = int(np.searchsorted(self.sizes, rows)) if tried.named else last + 1
        step = 1
        while above - below > 1:
            growth = wanted / tried.strongest if tried.strongest > 0 else np.inf
            likely = int(np.searchsorted(self.sizes, min(rows * growth, self.sizes[-1])))
            if step > _GALLOP:
                at = (below + above) // 2
            elif tried.named:
                at = min(likely, above - step)
            else:
                at = max(likely, below + step)
            at = min(max(at, below + 1), above - 1)
            step *= 2
            rows = self.sizes[at]
            tried, given = self._trial(setting, number, rows, given or None)
            below, above = (below, at) if tried.named else (at, above)
        return None if above > last else above


def settings(
    names: Sequence[str] = (),
    colluders: Sequence[int] = (1, 2, 3, 5),
    *,
    keyed: bool = True,
    quick: bool = False,
) -> list[Setting]:
    """Return what to try: attacks by name (all by default), each with its grid of strengths.

    Attacks of several thieves once for each coalition size among ``colluders``, the others where
    these hold 1. ``quick`` leaves each attack its usual strength. Raises InvalidInput for an
    unknown name or a coalition of nobody.
    """
    if any(size < 1 for size in colluders):
        raise InvalidInput("a coalition has at least one member")
    chosen = [attack_named(name) for name in names] or list(ATTACKS)
    out = []
    for attack in chosen:
        sizes = [n for n in sorted(set(colluders)) if (n > 1) == (attack.colluders > 1)]
        strengths = (attack.usual,) if quick else attack.strengths
        out += [
            Setting(attack, strength, size, keyed and attack.keeps_key)
            for size in sizes
            for strength in strengths
        ]
    return out


def changed_policy(policy: Policy, relation: str | None, change: str, factor: int) -> Policy:
    """Return a policy whose relation has its densities or quanta multiplied.

    ``change`` is ``density`` (at most 1) or ``quantum``; tolerances that would no longer fit
    between their bounds, or on their grid, keep their quantum.
    """
    protected = policy.relation(relation)
    carriers = []
    for carrier in protected.carriers:
        if change == "density":
            denser = min(carrier.density * factor, Decimal(1))
            carriers.append(replace(carrier, density=denser))
        else:
            wider = {name: _wider(t, factor) for name, t in carrier.tolerances.items()}
            carriers.append(replace(carrier, tolerances=wider))
    other = replace(protected, carriers=tuple(carriers))
    return replace(
        policy, relations=tuple(other if one is protected else one for one in policy.relations)
    )


def _wider(tolerance: Tolerance | Equivalents, factor: int) -> Tolerance | Equivalents:
    if isinstance(tolerance, Equivalents):
        return tolerance
    quantum = tolerance.quantum * factor
    narrow = tolerance.high - tolerance.low < 2 * quantum
    off_grid = tolerance.grid is not None and (
        tolerance.grid <= quantum or bool(tolerance.grid % quantum)
    )
    return tolerance if narrow or off_grid else replace(tolerance, quantum=quantum)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a rehearsal needs; see `Rehearsal`. Unlike one, it can be sent to other processes."""

    policy: Policy
    relation: str | None
    stored: pa.Table
    recipients: Sequence[str]
    alpha: float
    seed: int
    types: Mapping[str, SqlType] | None = None
    linked_rows: int = LINKED_ROWS

    def rehearsal(self) -> Rehearsal:
        """Return the rehearsal. Raises as its constructor does."""
        return Rehearsal(
            self.policy,
            self.relation,
            self.stored,
            self.recipients,
            alpha=self.alpha,
            seed=self.seed,
            types=self.types,
            linked_rows=self.linked_rows,
        )


@dataclass(frozen=True)
class Task:
    """One estimate to make; see `Rehearsal.estimate`."""

    setting: Setting
    rows: int
    trials: int
    sizes: bool

    def done_in(self, rehearsal: Rehearsal) -> Estimate:
        """Make the estimate."""
        return rehearsal.estimate(self.setting, self.rows, self.trials, sizes=self.sizes)


Runner = Callable[[Plan, Sequence[Task]], Iterable[Estimate]]
"""Makes estimates, in order; each depends on nothing but the plan and its task."""


def in_turn(plan: Plan, tasks: Sequence[Task]) -> Iterable[Estimate]:
    """Make estimates one after the other, in this process."""
    rehearsal = plan.rehearsal()
    return (task.done_in(rehearsal) for task in tasks)


def study(
    plan: Plan,
    chosen: Sequence[Setting],
    *,
    rows: int,
    trials: int,
    variants: Sequence[tuple[str, int]] = (("density", 2), ("quantum", 2)),
    run: Runner = in_turn,
    progress: Progress = silent,
) -> Study:
    """Try every setting, and the hardest one under changed policies too.

    Rows needed are looked for at each attack's usual strength, unless it only changes how a leak
    looks. Raises InvalidInput as `Rehearsal` does, or when there is nothing to try.
    """
    if not chosen or trials < 1:
        raise InvalidInput("there is nothing to try", hint="more trials, other --colluders?")
    protected = plan.policy.relation(plan.relation)
    total = len(chosen) + len(variants)
    tasks = [
        Task(one, rows, trials, one.strength == one.attack.usual and one.attack.kind != "look")
        for one in chosen
    ]
    progress(chosen[0].attack.name, 0, total)
    estimates = []
    for done, estimate in enumerate(run(plan, tasks), 1):
        estimates.append(estimate)
        progress(estimate.setting.attack.name, done, total)
    compared = [e for e in estimates if e.setting.attack.name == "none" and e.sizes][:1]
    worst = hardest(estimates)
    compared += [worst] if worst is not None and worst not in compared else []
    made = []
    for done, (change, factor) in enumerate(variants, len(chosen)):
        progress(f"{change} × {factor}", done, total)
        other = changed_policy(plan.policy, protected.qualified, change, factor)
        if compared and other != plan.policy:
            again = run(
                replace(plan, policy=other),
                [
                    Task(_same_damage(e.setting, change, factor), rows, trials, True)
                    for e in compared
                ],
            )
            tried = [
                replace(new, setting=old.setting) for old, new in zip(compared, again, strict=True)
            ]
            made.append(Variant(change, factor, tuple(tried)))
    every = [*estimates, *(e for variant in made for e in variant.estimates)]
    return Study(
        protected.qualified,
        len(plan.recipients),
        plan.alpha,
        min(rows, plan.stored.num_rows),
        trials,
        plan.seed,
        plan.stored.num_rows,
        sum(e.scored for e in every),
        sum(e.wronged for e in every),
        tuple(estimates),
        tuple(made),
    )


def _same_damage(setting: Setting, change: str, factor: int) -> Setting:
    """The thief does the same to the data, whatever the policy's quantum."""
    if change == "quantum" and setting.attack.in_quanta:
        return replace(setting, strength=setting.strength / factor)
    return setting
