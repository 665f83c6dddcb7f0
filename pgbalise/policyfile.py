"""A policy as a file, TOML or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pgbalise.errors import InvalidPolicy
from pgbalise.marking.policy import Policy, load_document, parse_policy


def read_document(path: Path) -> dict[str, Any]:
    """Return a policy file's document, unchecked.

    Raise InvalidPolicy, naming the file, when it cannot be read or is neither TOML nor JSON.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as problem:
        raise InvalidPolicy(f"{path}: the policy cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidPolicy(f"{path}: the policy is not UTF-8 text") from None
    try:
        return load_document(text)
    except InvalidPolicy as problem:
        raise _in(path, problem) from None


def read_policy(path: Path) -> Policy:
    """Return the policy of a file; raise InvalidPolicy, naming it, when there is none in it."""
    document = read_document(path)
    try:
        return parse_policy(document)
    except InvalidPolicy as problem:
        raise _in(path, problem) from None


def _in(path: Path, problem: InvalidPolicy) -> InvalidPolicy:
    return InvalidPolicy(f"{path}: {problem.message}", hint=problem.hint)
