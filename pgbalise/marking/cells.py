"""Which cells carry a bit, which position of the codeword, and in which direction they move."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from pgbalise.marking.codes import CODE_LENGTH
from pgbalise.marking.hashing import KeyPart, Strings, hash_bytes, key_hash
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Carrier, Derivation, Policy, Relation

POSITION_MASK = 0x7FFFFFFF
"""The hash bits that give the position (modulo CODE_LENGTH)."""

SIGN_BIT = 1 << 32
"""The hash bit that gives the sign: up when it is 0."""


@dataclass(frozen=True)
class CarrierSecret:
    """What the database keeps secret for one carrier.

    Two hash seeds (int64), and 16 key bytes that only SHA-256 derivation uses.
    """

    first: int
    second: int
    key: bytes


def carrier_secret(
    key: MasterKey, policy: Policy, relation: Relation, carrier: Carrier
) -> CarrierSecret:
    """Derive a carrier's secret from the master key, its name and the policy's epoch."""
    raw = key.derive(
        "carrier", relation.schema, relation.name, carrier.column, policy.epoch, length=32
    )
    first, second = (int.from_bytes(raw[at : at + 8], "little", signed=True) for at in (0, 8))
    return CarrierSecret(first, second, raw[16:])


def gate_limit(density: Decimal) -> int:
    """The signed 64-bit number below which a cell's hash selects it."""
    return min(int(density * 2**64) - 2**63, 2**63 - 1)


@dataclass(frozen=True)
class Cells:
    """The selected cells of one carrier.

    ``row`` int64 (index into the keys, ascending), ``position`` int32 in the codeword, ``up`` bool;
    ``cell`` int64: the hash of the cell's key, the same wherever the cell occurs.
    """

    row: NDArray[np.int64]
    position: NDArray[np.int32]
    up: NDArray[np.bool_]
    cell: NDArray[np.int64]


def select(
    secret: CarrierSecret, carrier: Carrier, derivation: Derivation, key: Sequence[KeyPart]
) -> Cells:
    """Return the selected cells among rows with these keys (none of them NULL)."""
    hashes = key_hash(key, secret.first, secret.second)
    row = np.flatnonzero(hashes < gate_limit(carrier.density))
    cell = chosen = hashes[row]
    if derivation is Derivation.SHA256:
        chosen = _digests(secret, chosen)
    position = ((chosen & POSITION_MASK) % CODE_LENGTH).astype(np.int32)
    return Cells(row, position, (chosen & SIGN_BIT) == 0, cell)


def _digests(secret: CarrierSecret, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """SHA-256 of the key and the cell hash, folded to 64 bits by the unseeded text hash."""
    messages = hashes.astype(">i8").tobytes()
    texts = [
        base64.b64encode(hashlib.sha256(secret.key + messages[at : at + 8]).digest())
        for at in range(0, len(messages), 8)
    ]
    return hash_bytes(Strings.of(texts), 0)
