"""Which formats there are, what each can hold, and who writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.clamav import write_clamav
from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.lists import write_jsonl, write_list, write_scrypt, write_sha256
from pgbalise.detectors.misp import write_misp
from pgbalise.detectors.patterns import LEAST_ALONE, NUMBERS
from pgbalise.detectors.purview import write_purview
from pgbalise.detectors.rspamd import write_rspamd
from pgbalise.detectors.sigma import write_sigma
from pgbalise.detectors.stix import write_stix
from pgbalise.detectors.suricata import write_suricata
from pgbalise.detectors.yara import write_yara


@dataclass(frozen=True)
class Format:
    """A format: what writes it, which kinds it can match, and what it knows.

    ``least`` is the length below which it would take other numbers for a decoy's. ``expires``:
    the file says until when it is to be used. ``names``: it has a place for recipients' names.
    """

    write: Callable[[Export], Files]
    kinds: frozenset[TraitKind] = frozenset(TraitKind)
    least: int = LEAST_ALONE
    expires: bool = True
    names: bool = False


class FormatName(StrEnum):
    """What ``--format`` takes."""

    JSONL = "jsonl"
    LIST = "list"
    HASHES = "hashes"
    SCRYPT = "scrypt"
    YARA = "yara"
    SURICATA = "suricata"
    CLAMAV = "clamav"
    RSPAMD = "rspamd"
    PURVIEW = "purview"
    MISP = "misp"
    STIX = "stix"
    SIGMA = "sigma"


FORMATS: Final = {
    FormatName.JSONL: Format(write_jsonl, least=1, expires=False, names=True),
    FormatName.LIST: Format(write_list, NUMBERS, expires=False),
    FormatName.HASHES: Format(write_sha256, least=1),
    FormatName.SCRYPT: Format(write_scrypt, least=1),
    FormatName.YARA: Format(write_yara, names=True),
    FormatName.SURICATA: Format(write_suricata),
    FormatName.CLAMAV: Format(write_clamav, expires=False),
    FormatName.RSPAMD: Format(write_rspamd),
    FormatName.PURVIEW: Format(write_purview),
    FormatName.MISP: Format(write_misp, names=True),
    FormatName.STIX: Format(write_stix, names=True),
    FormatName.SIGMA: Format(write_sigma, names=True),
}
