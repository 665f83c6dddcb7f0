"""Suricata rules: one for each text of a decoy and each way in which it may pass in clear.

Grammar: https://docs.suricata.io/en/latest/rules/intro.html and payload-keywords.html. The stream
of any TCP connection (HTTP requests, FTP data, PostgreSQL's protocol without TLS), HTTP bodies
after decompression, and parts of mails after decoding.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final

from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.expressions import alone, any_of, encoded, escaped_bytes, person_expressions
from pgbalise.detectors.patterns import Target

_WAYS: Final = (
    ("tcp", "flow:established;", ""),
    ("http", "flow:established,to_client;", "file.data; "),
    ("smtp", "flow:established,to_server;", "file.data; "),
)

_FIRST: Final = 1_000_000_000
_LAST: Final = 4_294_967_295
"""Signature numbers: beyond all blocks that are given out (https://sidallocation.org), within 32
bits."""


def write_suricata(export: Export) -> Files:
    """Return one file of rules, to be loaded as a file of ``rule-files``."""
    taken: set[int] = set()
    lines = []
    for target in export.targets:
        for options in _options(target):
            for protocol, flow, buffer in _WAYS:
                number = _number(f"{target.rule} {protocol} {options}", taken)
                lines.append(
                    f'alert {protocol} any any -> any any (msg:"{_quoted(export.title(target))}"; '
                    f"{flow} {buffer}{options} classtype:policy-violation; "
                    f"metadata:{_metadata(export, target)}; sid:{number}; rev:1;)\n"
                )
    return {"decoys.rules": "".join(lines).encode("ascii")}


def _options(target: Target) -> Iterator[str]:
    for spelling in target.texts:
        for content in _clear(spelling.text):
            # the same bytes again, where no letter or digit adjoins
            pcre = alone(escaped_bytes(content))
            yield f'content:"{_content(content)}"; nocase; fast_pattern; pcre:"/{pcre}/i";'
    if target.person is not None:
        # the family name, if it is in a column of its own
        names = sorted({way for name in target.person.names[0][0] for way in _clear(name)})
        for expression in person_expressions(target.person, _on_clear):
            pcre = alone(expression)
            for name in names:
                yield f'content:"{_content(name)}"; nocase; fast_pattern; pcre:"/{pcre}/is";'


def _on_clear(texts: Iterable[str]) -> str:
    return any_of(escaped_bytes(way) for text in texts for way in _clear(text))


def _clear(text: str) -> tuple[bytes, ...]:
    """Without UTF-16: nothing on the wire but a few files is."""
    return encoded(text)[:-1]


def _content(content: bytes) -> str:
    r"""Write bytes as ``content`` takes them: all but letters and digits as ``|2f|``."""
    found = "".join(chr(b) if b < 128 and chr(b).isalnum() else f"|{b:02x}|" for b in content)
    return found.replace("||", " ")


def _quoted(text: str) -> str:
    """Take from a message what would end it."""
    return re.sub(r"[^0-9A-Za-z .,_-]", "_", text)


def _metadata(export: Export, target: Target) -> str:
    facts = [f"decoy {target.rule}", f"created_at {export.made_on.replace('-', '_')}"]
    if export.expires_on is not None:
        facts.append(f"expires_at {export.expires_on.replace('-', '_')}")
    return ", ".join(facts)


def _number(text: str, taken: set[int]) -> int:
    """Return a number that stays the same from one export to the next, but for a rare clash."""
    span = _LAST - _FIRST + 1
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % span
    while _FIRST + number in taken:
        number = (number + 1) % span
    taken.add(_FIRST + number)
    return _FIRST + number
