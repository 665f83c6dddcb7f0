"""The demonstration's policy, as tests need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pgbalise.marking.policy import load_document


def marks_only(project: Path) -> dict[str, Any]:
    """The demonstration's policy without its decoys."""
    document = load_document((project / "pgbalise/demo/policy.toml").read_text("utf-8"))
    del document["decoys"]
    for relation in document["relation"].values():
        del relation["decoys"]
        relation.pop("identity", None)
    return document
