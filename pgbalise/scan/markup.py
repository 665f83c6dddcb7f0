"""PURE. The text in XML, HTML, JSON and RTF, as readers see it."""

from __future__ import annotations

import html
import re
from typing import Final

_PLAIN_TAG: Final = re.compile(rb"<[/!?]?[A-Za-z][^<>]*>|<[!?][^<>]*>")
_TAG: Final = re.compile(rb"<!--.*?-->|" + _PLAIN_TAG.pattern, re.DOTALL)
_COMMENT_END: Final = b"-->"
# Between these nothing is seen: office programs cut words into runs, HTML makes letters bold.
# One end is not looked for beyond the next: a text of ends alone would take hours.
_RUNS: Final = re.compile(
    rb"</(?:w|a):t>(?:(?!</(?:w|a):[pt]>|<w:tab|<(?:w|a):br|<w:cr)<[^<>]*>)*"
    rb"<(?:w|a):t(?:\s[^<>]*)?>"
)
_INLINE: Final = re.compile(
    rb"</?(?:b|i|u|em|strong|span|mark|wbr|small|font|text:span)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_ATTRIBUTE: Final = re.compile(rb"=\s*(?:\"([^\"]*)\"|'([^']*)')")
_ENTITY: Final = re.compile(rb"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_JSON_NAME: Final = re.compile(rb'"[^"\\\r\n]{1,64}"\s*:')
_JSON_ESCAPE: Final = re.compile(rb'\\(?:u([0-9a-fA-F]{4})|[bfnrt"/\\])')
_RTF: Final = re.compile(rb"\\'([0-9a-fA-F]{2})|\\u(-?[0-9]{1,6})\??|\\[a-z]+-?[0-9]* ?|[{}]")


def plain_markup(text: bytes) -> bytes:
    """Return XML or HTML without its tags, on the same lines.

    The values of attributes stay, which may hold data; entities become what they stand for.
    """
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = text.decode("utf-16", "replace").encode()
    text = _INLINE.sub(_newlines, _RUNS.sub(_newlines, text))
    # behind the last end of a comment every other "<!--" would be looked at to the end of the text
    last = text.rfind(_COMMENT_END) + len(_COMMENT_END)
    if last < len(_COMMENT_END):
        last = 0
    return _ENTITY.sub(_entity, _TAG.sub(_tag, text[:last]) + _PLAIN_TAG.sub(_tag, text[last:]))


def _newlines(found: re.Match[bytes]) -> bytes:
    return b"\n" * found[0].count(b"\n")


def _tag(found: re.Match[bytes]) -> bytes:
    tag = found[0]
    values = b" ".join(one or other for one, other in _ATTRIBUTE.findall(tag))
    if tag.startswith(b"<!--"):
        values = tag[4:-3]
    return b" " + values + b" " * bool(values) + b"\n" * (tag.count(b"\n") - values.count(b"\n"))


def _entity(found: re.Match[bytes]) -> bytes:
    return html.unescape(found[0].decode("ascii")).encode("utf-8", "replace")


def without_names(text: bytes) -> bytes:
    """Return JSON text without the names of its values and without escapes, of the same length."""
    return _JSON_ESCAPE.sub(_unescaped, _JSON_NAME.sub(_blank, text))


def _blank(found: re.Match[bytes]) -> bytes:
    return bytes(10 if byte == 10 else 32 for byte in found[0])


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = int(found[1], 16) if found[1] else 32
    letter = bytes((code,)) if 32 <= code < 127 else b" "
    return letter.ljust(len(found[0]))


def plain_rtf(text: bytes) -> bytes:
    """Return the text of a rich text document, in UTF-8."""
    return _RTF.sub(_control, text)


def _control(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return bytes((int(found[1], 16),)).decode("cp1252", "replace").encode()
    if found[2]:
        return chr(int(found[2]) % 65_536).encode("utf-8", "replace")
    if found[0].strip() in (b"\\par", b"\\line", b"\\row", b"\\cell", b"\\tab"):
        return b"\n" if found[0].strip() in (b"\\par", b"\\line", b"\\row") else b"\t"
    return b""
