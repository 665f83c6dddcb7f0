"""PURE. What an auditor is told of a scan: an alert for each decoy and file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

from pgbalise.scan.scanning import Hit
from pgbalise.watch import alert_id

_NAME: Final = 200


def found_alerts(
    hits: Iterable[Hit], digests: Mapping[str, str], at: datetime
) -> list[dict[str, Any]]:
    """Return the alerts of kind ``decoy_found``, in the order of the hits; only certain ones count.

    ``digests`` are the SHA-256 of files, 64 hexadecimal digits, by name as the hits have it; what
    has none is known by its name for the rest of the hour. The same decoy in the same file always
    gives the same id. Of a file's place only its own name is told: folders are of no use to others,
    and may name people.
    """
    by_decoy: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        if hit.certain:
            by_decoy.setdefault((hit.decoy, hit.file), []).append(hit)
    return [_alert(found, digests.get(found[0].file), at) for found in by_decoy.values()]


def _alert(found: list[Hit], digest: str | None, at: datetime) -> dict[str, Any]:
    decoy, file = found[0].decoy, PurePath(found[0].file).name[:_NAME]
    recipient = decoy.rpartition("/")[0]
    which = digest or f"{file} {at.astimezone(UTC):%Y-%m-%dT%H}"
    return {
        "type": "alert",
        "at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "alert": alert_id("decoy_found", "", recipient, f"{decoy}:{which}"),
        "kind": "decoy_found",
        "severity": "critical",
        "recipient": recipient,
        "database": None,
        "system": None,
        "client": None,
        "detail": {
            "decoys": [decoy],
            "decoys_of": [recipient],
            "file": file,
            "sha256": digest,
            "kinds": sorted({hit.kind for hit in found}),
            "places": len(found),
        },
    }
