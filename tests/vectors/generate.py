"""Write the published test vectors: ``python tests/vectors/generate.py > tests/vectors/v1.json``.

They are frozen: a change here means a new format version, because old leaks must stay traceable.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

import pgbalise
import pgbalise.frames
from pgbalise.marking.cells import carrier_secret, select
from pgbalise.marking.codes import bias, codeword, commitment, dither, stored_word
from pgbalise.marking.hashing import Strings, hash_bytes, hash_int8
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import parse_policy

SECRET = bytes(range(32))
RECIPIENT = "registry_rennes"

DOCUMENT: dict[str, Any] = {
    "relation": {
        "dpi.sample": {
            "key": {"id": "bigint", "site": "text"},
            "carrier": {
                "count": {
                    "type": "integer",
                    "density": "0.5",
                    "quantum": "2",
                    "bounds": ["0", "90"],
                },
                "value": {
                    "type": "numeric(7,2)",
                    "density": "0.5",
                    "by": {"test": "text"},
                    "tolerance": {
                        "hdl": {"quantum": "0.1", "thresholds": ["40"], "skip": ["0"]},
                        "sbp": {"quantum": "1", "grid": "5", "bounds": ["-50", "300"]},
                    },
                },
                "ratio": {"type": "double precision", "density": "0.5", "quantum": "0.01"},
                "index": {"type": "real", "density": "0.5", "quantum": "0.1", "continuous": True},
                "born": {
                    "type": "date",
                    "density": "0.5",
                    "quantum": "3 days",
                    "entity": {"site": "text"},
                },
                "taken": {
                    "type": "timestamptz",
                    "density": "0.5",
                    "quantum": "1 minute",
                    "neutral": True,
                },
                "stored": {"type": "timestamp", "density": "0.5", "quantum": "1 millisecond"},
                "sex": {
                    "type": "text",
                    "density": "0.5",
                    "equivalents": [["F", "W"], ["M", "H", "m"]],
                },
            },
        }
    }
}

TYPES = {
    "id": pa.int64(),
    "site": pa.string(),
    "test": pa.string(),
    "count": pa.int32(),
    "value": pa.string(),
    "ratio": pa.float64(),
    "index": pa.float32(),
    "born": pa.date32(),
    "taken": pa.timestamp("us", "UTC"),
    "stored": pa.timestamp("us"),
    "sex": pa.string(),
}


def rows() -> pa.Table:
    """Sixty rows that reach the edges: bounds, thresholds, skipped values, heaps, NULL."""
    n = np.arange(60)
    columns: dict[str, list[Any]] = {
        "id": [int(i) * 7919 - 100_000 for i in n],
        "site": [("rennes", "brest", "é", "")[i % 4] for i in n],
        "test": [("hdl", "sbp", "fib4")[i % 3] for i in n],
        "count": [None if i == 13 else int(i * 37 % 95) for i in n],
        "value": [
            ("0.00", "39.95", "40.00", "40.05", "-0.05", "120.00", "118.40", "60.00")[i % 8]
            for i in n
        ],
        "ratio": [float("nan") if i == 5 else round(i * 0.37, 2) if i % 5 else i / 7 for i in n],
        "index": [float(np.float32(i * 0.713)) for i in n],
        "born": [int(i * 977 - 9000) for i in n],
        "taken": [1_600_000_000_000_000 + int(i) * 61_000_000 for i in n],
        "stored": [-1_000_000_000_000 + int(i) * 1_234_567_891 for i in n],
        "sex": [("F", "M", "W", "H", "m", "?")[i % 6] for i in n],
    }
    return pa.table({name: pa.array(values, TYPES[name]) for name, values in columns.items()})


def text(table: pa.Table) -> dict[str, list[str | None]]:
    """Every value as the shortest text that gives it back."""
    out: dict[str, list[str | None]] = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_floating(column.type):
            wide = np.asarray(column)
            out[name] = [str(value) for value in wide]
        else:
            out[name] = column.cast(pa.string()).to_pylist()
    return out


def vectors() -> dict[str, Any]:
    """Everything that another implementation needs to check itself against."""
    key = MasterKey(SECRET)
    thresholds = bias(key, 1)
    bits = codeword(key, RECIPIENT, 1, thresholds)
    answer: dict[str, Any] = {
        "format": 1,
        "master_key": SECRET.hex(),
        "recipient": RECIPIENT,
        "epoch": 1,
        "hkdf": {"purpose": "carrier", "context": ["dpi", "sample", "value", 1]},
        "fingerprint": key.fingerprint(),
        "bias_first": thresholds[:16].tolist(),
        "bias_sha256": hashlib.sha256(thresholds.astype("<u2").tobytes()).hexdigest(),
        "codeword_sha256": hashlib.sha256(
            np.packbits(bits, bitorder="little").tobytes()
        ).hexdigest(),
        "stored_word_sha256": hashlib.sha256(stored_word(bits, dither(key, 1))).hexdigest(),
        "commitment": commitment(RECIPIENT, 1, bits).hex(),
        "hash_int8": [
            [value, seed, int(hash_int8(np.array([value], np.int64), seed)[0])]
            for value in (0, 1, -1, 2**40, -(2**63))
            for seed in (0, 1, -(2**62))
        ],
        "hash_text": [
            [value, seed, int(hash_bytes(Strings.of([value.encode()]), seed)[0])]
            for value in ("", "a", "twelve bytes", "é" * 20)
            for seed in (0, 7)
        ],
        "policy": DOCUMENT,
        "rows": text(rows()),
        "derivations": {},
    }
    answer["hkdf"]["bytes"] = key.derive("carrier", *answer["hkdf"]["context"], length=32).hex()
    for derivation in ("seeded", "sha256"):
        policy = parse_policy(DOCUMENT | {"derivation": derivation})
        relation = policy.relations[0]
        secrets = {c.column: carrier_secret(key, policy, relation, c) for c in relation.carriers}
        count = relation.carriers[0]
        parts, _ = pgbalise.frames.key_from_arrow(rows(), relation.key)
        cells = select(secrets["count"], count, policy.derivation, parts)
        answer["derivations"][derivation] = {
            "selected_count": [
                [int(row), int(position), bool(up)]
                for row, position, up in zip(cells.row, cells.position, cells.up, strict=True)
            ],
            "marked": text(pgbalise.mark(rows(), policy, RECIPIENT, key)),
        }
    return answer


if __name__ == "__main__":
    print(json.dumps(vectors(), ensure_ascii=False, indent=1))
