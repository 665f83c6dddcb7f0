"""From e-values to accusations, with one bound for all recipients together.

Accuse recipient j when E_j >= N / alpha. By Markov's inequality an innocent reaches that with
probability at most alpha / N, so the probability that any of N recipients is accused wrongly
is at most alpha, however their e-values depend on each other (Bonferroni; Vovk and Wang 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np

from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class RecipientVerdict:
    """What the leak says about one recipient.

    ``cells``: marked cells whose more likely symbol is the recipient's bit. ``decoys``: how many of
    this recipient's decoys the leak holds; the e-value counts them.
    """

    recipient: str
    accused: bool
    log10_e_value: float
    cells: int
    decoys: int


@dataclass(frozen=True)
class Verdict:
    """What the leak says about every recipient, strongest evidence first.

    ``threshold_log10`` is log10(recipients / alpha); ``alpha`` bounds the probability that anyone
    at all is accused wrongly. Counts: rows in the leak and rows aligned to the source; cells that
    carry a mark, and those of them whose evidence was used.
    """

    verdicts: tuple[RecipientVerdict, ...]
    threshold_log10: float
    alpha: float
    recipients: int
    rows_read: int
    rows_aligned: int
    cells_marked: int
    cells_used: int

    @property
    def accused(self) -> list[str]:
        """Return the recipients accused, strongest evidence first."""
        return [verdict.recipient for verdict in self.verdicts if verdict.accused]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``pgbalise trace --json`` prints."""
        return {
            "verdicts": [
                {
                    "recipient": verdict.recipient,
                    "accused": verdict.accused,
                    "log10_e_value": verdict.log10_e_value,
                    "cells": verdict.cells,
                    "decoys": verdict.decoys,
                }
                for verdict in self.verdicts
            ],
            "threshold_log10": self.threshold_log10,
            "alpha": self.alpha,
            "recipients": self.recipients,
            "rows": {"read": self.rows_read, "aligned": self.rows_aligned},
            "cells": {"marked": self.cells_marked, "used": self.cells_used},
        }


def threshold_log10(recipients: int, alpha: float) -> float:
    """Return log10(recipients / alpha), from which a log10 e-value accuses.

    Raises `InvalidInput` unless recipients >= 1 and 0 < alpha < 1.
    """
    if recipients < 1:
        raise InvalidInput(f"a decision needs at least one recipient, not {recipients}")
    if not 0 < alpha < 1:
        raise InvalidInput(
            f"alpha {alpha} is not a probability in (0, 1)",
            hint="alpha bounds the chance that anyone at all is accused wrongly, e.g. 1e-9",
        )
    return log10(recipients) - log10(alpha)


def spend(alpha: float, look: int) -> float:
    """Return the alpha of look 1, 2, 3, ... of a case: alpha / (look (look + 1)).

    Leaks come to a case one after the other, and each look may accuse. The parts 1/2, 1/6, 1/12 ...
    add up to 1, so that the probability that any look ever accuses an innocent stays
    below ``alpha`` however many looks there will be and whatever made one look again. A single
    trace outside a case spends its whole alpha.

    Raises `InvalidInput` unless look >= 1 and 0 < alpha < 1.
    """
    if look < 1:
        raise InvalidInput(f"looks of a case are counted from 1, not {look}")
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha {alpha} is not a probability in (0, 1)")
    return alpha / (look * (look + 1))


def decide(
    recipients: Sequence[str],
    log10_e_value: NDArray[np.float64],
    cells: NDArray[np.int64],
    decoys: NDArray[np.int64] | None = None,
    *,
    alpha: float,
    rows_read: int,
    rows_aligned: int,
    cells_marked: int,
    cells_used: int,
) -> Verdict:
    """Accuse every recipient whose e-value reaches len(recipients) / alpha.

    ``recipients`` are all who could have leaked and were scored, revoked ones included: their
    number is the N of the bound, and leaving out the unlikely ones would void it.
    ``log10_e_value`` float64[N], ``cells`` and ``decoys`` int64[N] (default: none found) are in
    the same order. Equal evidence is listed by name.

    Raises `InvalidInput` for an alpha outside (0, 1), no recipient, a name listed twice, arrays of
    another length, an e-value that is not finite, or more rows or cells used than there are.
    """
    threshold = threshold_log10(len(recipients), alpha)
    found = np.zeros(len(recipients), np.int64) if decoys is None else decoys
    for name, array in (("log10_e_value", log10_e_value), ("cells", cells), ("decoys", found)):
        if array.shape != (len(recipients),):
            raise InvalidInput(
                f"decision: {name} has shape {array.shape} for {len(recipients)} recipients"
            )
    if len(set(recipients)) != len(recipients):
        raise InvalidInput("decision: a recipient is listed twice")
    if not bool(np.all(np.isfinite(log10_e_value))):
        raise InvalidInput("decision: an e-value is not finite")
    if not (0 <= rows_aligned <= rows_read and 0 <= cells_used <= cells_marked):
        raise InvalidInput("decision: more rows aligned or cells used than there are")
    verdicts = [
        RecipientVerdict(name, bool(value >= threshold), float(value), int(agree), int(decoy))
        for name, value, agree, decoy in zip(recipients, log10_e_value, cells, found, strict=True)
    ]
    verdicts.sort(key=lambda verdict: (-verdict.log10_e_value, verdict.recipient))
    return Verdict(
        verdicts=tuple(verdicts),
        threshold_log10=threshold,
        alpha=alpha,
        recipients=len(recipients),
        rows_read=rows_read,
        rows_aligned=rows_aligned,
        cells_marked=cells_marked,
        cells_used=cells_used,
    )
