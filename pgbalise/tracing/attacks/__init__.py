"""What thieves do to a copy before they publish it, for simulations, tests and evaluation.

Everything is pure: randomness comes from the generator that the caller passes.

    numbers      collusion on symbols, damage to arrays of numbers
    cells        a carrier's cells in a table of text: read as numbers, written back
    damage       what one thief does to one table of text
    collusion    what several do with their copies of the same rows
    correlation  what the data's own regularities tell a thief about marks
    catalogue    all attacks on tables, by name (needs pyarrow, as the four above)
"""

from pgbalise.tracing.attacks.numbers import (
    MAGNITUDE_LIMIT,
    ROUNDING_MODES,
    RoundingMode,
    add_noise,
    collude,
    keep_rows,
    round_to_grid,
)

__all__ = [
    "MAGNITUDE_LIMIT",
    "ROUNDING_MODES",
    "RoundingMode",
    "add_noise",
    "collude",
    "keep_rows",
    "round_to_grid",
]
