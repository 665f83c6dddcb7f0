"""Trials of a policy's marks, and what many of them say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, lgamma
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.tracing.attacks.catalogue import Attack

POWER = 0.95
"""The detection rate that "rows needed" is about."""


@dataclass(frozen=True)
class Setting:
    """What is done to a leak."""

    attack: Attack
    strength: float
    colluders: int = 1
    keyed: bool = True
    """Whether the leak is traced by its key."""


@dataclass(frozen=True)
class Trial:
    """What came of one leak."""

    thieves: tuple[str, ...]
    accused: tuple[str, ...]
    traced: bool
    """Whether the leak could be traced at all."""
    cells: int
    """Marked cells whose evidence was used."""
    strongest: float
    """The largest log10 e-value among the thieves; minus infinity when not traced."""
    decades: Mapping[str, float]
    """By carrier: what its cells add to the log10 e-value of the first thief."""

    @property
    def named(self) -> int:
        """How many of the thieves are accused."""
        return len(set(self.thieves) & set(self.accused))

    @property
    def wronged(self) -> int:
        """How many innocents are accused."""
        return len(set(self.accused) - set(self.thieves))


@dataclass(frozen=True)
class Estimate:
    """What came of the leaks of one setting."""

    setting: Setting
    rows: int
    """Rows of each copy."""
    trials: tuple[Trial, ...]
    sizes: tuple[int | None, ...] | None = None
    """Rows of the copies from which each trial names a thief, ascending; None for more than
    there are. Those not tried any more count as None. Not looked for: None."""
    most: int = 0
    """Rows that were tried at most."""
    scored: int = 0
    """Innocents that were scored, in leaks of other sizes too."""
    wronged: int = 0
    """How many of those were accused."""

    @property
    def detected(self) -> int:
        """Trials in which at least one thief is named."""
        return sum(trial.named > 0 for trial in self.trials)

    @property
    def detection(self) -> float:
        """Share of trials in which at least one thief is named."""
        return self.detected / len(self.trials)

    @property
    def interval(self) -> tuple[float, float]:
        """Where that share lies with 95 % confidence."""
        return clopper_pearson(self.detected, len(self.trials))

    @property
    def recall(self) -> float:
        """Share of the thieves that are named."""
        return sum(t.named for t in self.trials) / sum(len(t.thieves) for t in self.trials)

    @property
    def all_named(self) -> float:
        """Share of trials in which every thief is named."""
        return sum(t.named == len(t.thieves) for t in self.trials) / len(self.trials)

    @property
    def false_accusations(self) -> int:
        """Innocents accused, over all trials."""
        return sum(trial.wronged for trial in self.trials)

    @property
    def not_traced(self) -> int:
        """Trials whose leak could not be traced."""
        return sum(not trial.traced for trial in self.trials)

    @property
    def decades(self) -> dict[str, float]:
        """By carrier: the mean of what it adds to the log10 e-value of a thief."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.decades)
        return {
            name: sum(t.decades.get(name, 0.0) for t in self.trials) / len(self.trials)
            for name in names
        }

    def rows_for(self, power: float = POWER) -> int | None:
        """Return the rows with which a share ``power`` of the trials names a thief.

        None when more are needed than were tried, or the sizes were not looked for.
        """
        if self.sizes is None:
            return None
        return self.sizes[ceil(power * len(self.sizes) - 1e-9) - 1]

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON has it."""
        low, high = self.interval
        return {
            "attack": self.setting.attack.name,
            "strength": self.setting.strength if self.setting.attack.parameter else None,
            "colluders": self.setting.colluders,
            "key": self.setting.keyed,
            "rows": self.rows,
            "trials": len(self.trials),
            "detection": self.detection,
            "interval": [low, high],
            "recall": self.recall,
            "all_named": self.all_named,
            "false_accusations": self.false_accusations,
            "not_traced": self.not_traced,
            "decades": self.decades,
            "rows_needed": self.rows_for(),
            "rows_tried": self.most or None,
            "sizes": None if self.sizes is None else list(self.sizes),
        }


@dataclass(frozen=True)
class Variant:
    """The same leaks under a policy with other densities or quanta."""

    change: str
    """``density`` or ``quantum``."""
    factor: float
    estimates: tuple[Estimate, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the variant as JSON has it."""
        return {
            "change": self.change,
            "factor": self.factor,
            "estimates": [estimate.as_dict() for estimate in self.estimates],
        }


@dataclass(frozen=True)
class Study:
    """Everything that was found out about one relation of a policy."""

    relation: str
    recipients: int
    alpha: float
    rows: int
    trials: int
    seed: int
    stored: int
    """Rows of the relation that copies were made of."""
    scored: int
    """Innocents that were scored, over all leaks."""
    wronged: int
    """How many of those were accused."""
    estimates: tuple[Estimate, ...]
    variants: tuple[Variant, ...]

    @property
    def untouched(self) -> Estimate | None:
        """The estimate for copies that nobody altered."""
        return next((e for e in self.estimates if e.setting.attack.name == "none"), None)

    @property
    def hardest(self) -> Estimate | None:
        """The estimate of the lone thief's attack that hurts most, at its usual strength."""
        return hardest(self.estimates)

    def as_dict(self) -> dict[str, Any]:
        """Return the study as JSON has it."""
        return {
            "relation": self.relation,
            "recipients": self.recipients,
            "alpha": self.alpha,
            "rows": self.rows,
            "trials": self.trials,
            "seed": self.seed,
            "stored": self.stored,
            "innocents_scored": self.scored,
            "innocents_accused": self.wronged,
            "estimates": [estimate.as_dict() for estimate in self.estimates],
            "variants": [variant.as_dict() for variant in self.variants],
        }


def hardest(estimates: Iterable[Estimate]) -> Estimate | None:
    """Return the estimate of the lone thief's attack on values that needs most rows.

    Of attacks that need the same, the one that is detected less often.
    """
    hurt = [
        e
        for e in estimates
        if e.setting.colluders == 1
        and e.setting.strength == e.setting.attack.usual
        and e.setting.attack.kind == "values"
        and e.sizes is not None
    ]

    def pain(one: Estimate) -> tuple[float, float]:
        return one.rows_for() or np.inf, -one.detection

    return max(hurt, key=pain, default=None)


def clopper_pearson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return an interval that holds a probability with at least ``level`` confidence.

    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the
    case of the binomial", Biometrika 26(4), 1934. Raises InvalidInput unless 0 <= hits <= trials.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise InvalidInput(f"{hits} of {trials} trials")
    k = np.arange(trials + 1)
    choose = np.array([lgamma(trials + 1) - lgamma(i + 1) - lgamma(trials - i + 1) for i in k])

    def solve(tail: NDArray[np.bool_], rising: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            p = (low + high) / 2
            mass = np.exp(choose + k * np.log(p) + (trials - k) * np.log1p(-p))[tail].sum()
            if (mass < (1 - level) / 2) == rising:
                low = p
            else:
                high = p
        return (low + high) / 2

    return (
        solve(k >= hits, rising=True) if hits else 0.0,
        solve(k <= hits, rising=False) if hits < trials else 1.0,
    )
