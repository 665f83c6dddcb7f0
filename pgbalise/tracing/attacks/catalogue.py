"""All attacks on tables, by name: one list for evaluation, benchmarks and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from pgbalise.errors import InvalidInput
from pgbalise.marking.policy import Relation
from pgbalise.tracing.attacks import damage
from pgbalise.tracing.attacks.collusion import Merge, merge, mix
from pgbalise.tracing.attacks.correlation import Correlations


@dataclass(frozen=True, eq=False)
class Context:
    """What a thief knows besides the copies, and where the copies come from."""

    relation: Relation
    stored: pa.Table
    """Rows of the relation as columns of text: what is publicly known of its distribution."""
    others: pa.Table | None = None
    """Rows of another origin that are not in the copies; None for those of ``stored``."""
    same_rows: bool = False
    """Whether the copies hold the rows of ``stored``, in their order."""

    @cached_property
    def correlations(self) -> Correlations:
        """What the stored rows tell about how columns and rows go together."""
        return Correlations.learn(self.stored, self.relation)


AttackKind = Literal["selection", "values", "collusion", "look", "key"]
"""What an attack works on: which rows and columns are leaked, the values of marked cells, several
copies at once, how things are written, the key."""

Apply = Callable[[Sequence[pa.Table], Context, float, np.random.Generator], pa.Table]


@dataclass(frozen=True)
class Attack:
    """Something that thieves do to their copies before they publish one table."""

    name: str
    kind: AttackKind
    description: str
    parameter: str
    """What the strength says; empty for an attack that has none."""
    strengths: tuple[float, ...]
    """A sensible grid, weakest first."""
    usual: float
    """The strength that stands for the attack where only one is tried."""
    run: Apply
    in_quanta: bool = False
    """Whether the strength is counted in the policy's quanta."""
    whole: bool = False
    """Whether it looks at rows together: then it is done to a whole copy, before rows are kept."""

    def __reduce__(self) -> tuple[object, ...]:
        # what it runs has no name of its own, so another process looks it up in the catalogue
        return attack_named, (self.name,)

    @property
    def colluders(self) -> int:
        """The smallest number of copies that it needs."""
        return 2 if self.kind == "collusion" else 1

    @property
    def keeps_key(self) -> bool:
        """Whether the leak still says which row is which."""
        return self.kind != "key"

    def apply(
        self,
        copies: Sequence[pa.Table],
        context: Context,
        rng: np.random.Generator,
        strength: float | None = None,
    ) -> pa.Table:
        """Return the leak that becomes of copies (columns of text).

        All copies hold the same rows in the same order. ``strength`` is the usual one by default.
        Raises InvalidInput with too few copies or an impossible strength.
        """
        damage.copies_alike(copies)
        if len(copies) < self.colluders:
            raise InvalidInput(f"{self.name} needs {self.colluders} copies, not {len(copies)}")
        return self.run(copies, context, self.usual if strength is None else strength, rng)


def _merged(how: Merge) -> Apply:
    return lambda copies, context, _, rng: merge(copies, context.relation, how, rng)


def _enlarged(
    copies: Sequence[pa.Table], context: Context, share: float, rng: np.random.Generator
) -> pa.Table:
    others = context.stored if context.others is None else context.others
    return damage.enlarge(copies[0], others, share, rng)


def _corrected(
    copies: Sequence[pa.Table], context: Context, share: float, _rng: np.random.Generator
) -> pa.Table:
    return context.correlations.correct(
        copies[0], context.relation, share, same_rows=context.same_rows
    )


_MERGES: dict[Merge, str] = {
    "average": "each cell the mean of the copies",
    "minimum": "each cell the least value among the copies",
    "maximum": "each cell the greatest value among the copies",
    "majority": "each cell the value that most copies have",
    "minority": "each cell the value that fewest copies have",
    "interleave": "each cell from a copy picked at random",
}
assert set(_MERGES) == set(get_args(Merge))


def _fixed(name: str, kind: AttackKind, description: str, run: Apply) -> Attack:
    return Attack(name, kind, description, "", (1.0,), 1.0, run)


ATTACKS: tuple[Attack, ...] = (
    _fixed("none", "selection", "the copy as it was supplied", lambda c, *_: c[0]),
    Attack(
        "subset",
        "selection",
        "only a share of the rows is kept",
        "share of the rows kept",
        (0.5, 0.1, 0.01),
        0.1,
        lambda c, _, share, rng: damage.subset(c[0], share, rng),
    ),
    Attack(
        "columns",
        "selection",
        "a share of the marked columns is dropped",
        "share of the carriers dropped",
        (0.5, 0.8),
        0.5,
        lambda c, x, share, rng: damage.drop_carriers(c[0], x.relation, share, rng),
    ),
    Attack(
        "superset",
        "selection",
        "real rows of another origin are mixed in",
        "rows added per row",
        (0.5, 1.0),
        1.0,
        _enlarged,
    ),
    Attack(
        "flip",
        "values",
        "cells are moved by one quantum, as a mark would",
        "share of the cells moved",
        (0.1, 0.3, 0.5),
        0.3,
        lambda c, x, share, rng: damage.flip(c[0], x.relation, share, rng),
    ),
    Attack(
        "noise",
        "values",
        "Gaussian noise on every marked column",
        "standard deviation in quanta",
        (0.5, 1.0, 3.0),
        1.0,
        lambda c, x, scale, rng: damage.noise(c[0], x.relation, scale, rng),
        in_quanta=True,
    ),
    Attack(
        "round",
        "values",
        "every marked column is rounded",
        "grid in quanta",
        (2.0, 5.0, 10.0),
        5.0,
        lambda c, x, factor, _: damage.coarsen(c[0], x.relation, factor),
        in_quanta=True,
    ),
    Attack(
        "resample",
        "values",
        "cells are replaced by those of other rows",
        "share of the cells replaced",
        (0.1, 0.3, 0.6),
        0.3,
        lambda c, x, share, rng: damage.resample(c[0], x.relation, share, rng),
    ),
    Attack(
        "correlation",
        "values",
        "improbable cells are set to what other columns and rows make probable",
        "largest share of the cells edited",
        (0.05, 0.15, 0.3),
        0.15,
        _corrected,
        whole=True,
    ),
    _fixed(
        "mix",
        "collusion",
        "each row from a copy picked at random",
        lambda c, _, __, rng: mix(c, rng),
    ),
    *(_fixed(how, "collusion", text, _merged(how)) for how, text in _MERGES.items()),
    _fixed(
        "sort",
        "look",
        "the rows are sorted by a marked column",
        lambda c, x, _, rng: damage.sort(c[0], x.relation, rng),
    ),
    _fixed(
        "comma",
        "look",
        "numbers are written with a decimal comma",
        lambda c, *_: damage.decimal_comma(c[0]),
    ),
    _fixed(
        "dates", "look", "dates are written as 31/12/2021", lambda c, *_: damage.french_dates(c[0])
    ),
    _fixed("rename", "look", "the columns have other names", lambda c, *_: damage.rename(c[0])),
    _fixed(
        "rekey",
        "key",
        "the key is replaced by new numbers",
        lambda c, x, _, rng: damage.new_key(c[0], x.relation, rng),
    ),
    _fixed(
        "keyless", "key", "the key is dropped", lambda c, x, *_: damage.drop_key(c[0], x.relation)
    ),
)
"""Every attack."""


def attack_named(name: str) -> Attack:
    """Return an attack of the catalogue; raise InvalidInput when it has none of that name."""
    for attack in ATTACKS:
        if attack.name == name:
            return attack
    known = ", ".join(attack.name for attack in ATTACKS)
    raise InvalidInput(f"no attack is called {name}", hint=f"one of {known}")
