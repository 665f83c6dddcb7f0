"""Which decoys were issued to whom, as the database's catalog has them (``balise.decoy``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy, identity_digest, read_decoys
from pgbalise.decoys.traits import TraitKind
from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from pgbalise.session import Session

_ISSUED = """
SELECT decoy_id, role_name::text, number, mode, identity::text, spaces::text, key::text,
       to_char(timezone('UTC', issued_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
       to_char(timezone('UTC', retired_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
  FROM balise.decoy
 WHERE ($1::text[] IS NULL OR role_name::text = ANY ($1::text[]))
   AND ($2::boolean OR retired_at IS NULL)
 ORDER BY role_name, number
"""


def issued(
    session: Session, recipients: Sequence[str] | None = None, *, retired: bool = True
) -> list[IssuedDecoy]:
    """Return the decoys issued, by recipient and number; None means all recipients.

    ``retired``: those too that were taken back, which a leak may still hold. Needs SELECT on
    balise.decoy, as balise_auditor has it; raise DatabaseProblem.
    """
    wanted = list(recipients) if recipients is not None else None
    return [
        IssuedDecoy(
            decoy_id,
            role,
            number,
            Mode(mode),
            {Role(name): text for name, text in json.loads(identity).items()},
            {TraitKind(kind): float(space) for kind, space in json.loads(spaces).items()},
            json.loads(key),
            datetime.fromisoformat(issued_at),
            datetime.fromisoformat(retired_at) if retired_at is not None else None,
        )
        for decoy_id, role, number, mode, identity, spaces, key, issued_at, retired_at in (
            session.fetch(_ISSUED, wanted, retired)
        )
    ]


def identity_digests(session: Session) -> dict[int, bytes]:
    """Return by decoy_id the digest that commits to each decoy's identity."""
    salts = session.fetch("SELECT decoy_id, salt::text FROM balise.decoy")
    by_id = {decoy_id: UUID(salt).bytes for decoy_id, salt in salts}
    return {
        decoy.decoy_id: identity_digest(decoy, by_id[decoy.decoy_id])
        for decoy in issued(session)
        if decoy.decoy_id in by_id
    }


def enter(session: Session, decoys: Sequence[IssuedDecoy], key_fingerprint: str) -> None:
    """Write decoys into the catalog with their traits; the database has their rows already.

    ``key_fingerprint`` is that of the master key they were drawn from.
    """
    session.append(
        "balise",
        "decoy",
        (
            "decoy_id",
            "role_name",
            "number",
            "mode",
            "identity",
            "spaces",
            "key",
            "key_fingerprint",
            "issued_at",
            "retired_at",
        ),
        [
            (
                decoy.decoy_id,
                decoy.recipient,
                decoy.number,
                decoy.mode.value,
                _json(decoy.as_dict()["identity"]),
                _json(decoy.as_dict()["spaces"]),
                _json(dict(decoy.key)),
                key_fingerprint,
                decoy.issued_at,
                decoy.retired_at,
            )
            for decoy in decoys
        ],
    )
    session.append(
        "balise",
        "decoy_trait",
        ("decoy_id", "kind", "value"),
        [(d.decoy_id, trait.kind.value, trait.value) for d in decoys for trait in d.traits],
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def decoys_of_file(path: Path) -> list[IssuedDecoy]:
    """Return the decoys of a file that ``pgbalise decoys export --format jsonl`` wrote.

    Raise InvalidInput, naming the file, when it cannot be read or is no such file.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as problem:
        raise InvalidInput(f"{path}: the decoys cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: this is not a file of decoys") from None
    try:
        return read_decoys(text)
    except InvalidInput as problem:
        raise InvalidInput(f"{path}: {problem.message}", hint=problem.hint) from None
