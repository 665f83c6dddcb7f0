"""The parts of mail: .eml, .mbox and Outlook's .msg."""

from __future__ import annotations

import email
import mailbox
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from typing import Any, Final

LONGEST: Final = 512 << 20
"""Bytes of the largest mail that is taken apart; a mail is held in memory as a whole."""

_LONGEST_FIELD: Final = 8_192
"""Characters of a field that are decoded; the time taken grows with their square."""

_FIELD: Final = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,60}:(?: |\t|\r?\n[ \t])")
_OF_MAIL: Final = re.compile(
    rb"^(?:Received|Return-Path|MIME-Version|Message-ID|Delivered-To|Subject|From|To|Date)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_MBOX: Final = re.compile(rb"From [^\r\n]{1,400}\d\d:\d\d[^\r\n]{0,100}\r?\n[A-Za-z>]")
_OUTLOOK_TEXTS: Final = {"0037": "subject", "1000": "body", "1013": "html", "0C1F": "sender"}


class _Mail(Message):
    """A message whose fields are read as far as is worth it: long ones would take hours."""

    def get(self, name: str, failobj: Any = None) -> Any:
        """Return a field, cut."""
        value = super().get(name, failobj)
        return value[:_LONGEST_FIELD] if isinstance(value, str) else value


@dataclass(frozen=True)
class Part:
    """A part of a mail: what it is called, and its bytes.

    ``plain``: it is text whatever it looks like.
    """

    name: str
    body: bytes
    plain: bool = False


def is_mail(head: bytes) -> bool:
    """Say whether a file that begins so is one mail: two fields of a header at least."""
    header = re.split(rb"\r?\n\r?\n", head[:16_384], maxsplit=1)[0]
    return bool(_FIELD.match(header)) and len(_OF_MAIL.findall(header)) >= 2


def is_mailbox(head: bytes) -> bool:
    """Say whether a file that begins so is a mailbox in mbox format (RFC 4155)."""
    return _MBOX.match(head) is not None


def mailbox_parts(path: Path) -> Iterator[Part]:
    """Yield the parts of all mails of a mailbox."""
    box = mailbox.mbox(path, create=False)
    try:
        for number, key in enumerate(box.keys(), 1):
            yield from _parts(
                email.message_from_bytes(box.get_bytes(key), _Mail), f"mail {number}!"
            )
    finally:
        box.close()


def mail_parts(path: Path) -> Iterator[Part]:
    """Yield the header and the decoded parts of one mail."""
    with path.open("rb") as file:
        yield from _parts(email.message_from_binary_file(file, _Mail), "")


def _parts(message: Message[Any, Any], prefix: str) -> Iterator[Part]:
    header = "".join(f"{name}: {_decoded(value)}\n" for name, value in message.items())
    yield Part(f"{prefix}header", header.encode("utf-8", "replace"), plain=True)
    for number, part in enumerate(message.walk()):
        if part.is_multipart():
            continue
        body = part.get_payload(decode=True)
        if isinstance(body, bytes):
            name = _decoded(part.get_filename() or "")
            plain = part.get_content_maintype() == "text" and not name
            yield Part(prefix + (name or ("body" if plain else f"part {number}")), body)


def _decoded(value: object) -> str:
    text = str(value)
    if len(text) > _LONGEST_FIELD:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (LookupError, UnicodeError, ValueError):
        return text


def outlook_parts(ole: Any) -> Iterator[Part]:
    """Yield the texts and attachments of a message of Outlook, an OleFileIO.

    Streams are named ``__substg1.0_`` and eight digits: the property and its type ([MS-OXMSG]
    2.1.3, [MS-OXPROPS]). 3701 is an attachment's content, 3707 and 3704 its names.
    """
    streams = {tuple(path): path for path in ole.listdir(streams=True, storages=False)}
    for path in streams:
        tag = path[-1].removeprefix("__substg1.0_")
        if tag == path[-1] or len(tag) < 8:
            continue
        where = "/".join(part for part in path[:-1] if not part.startswith("__substg"))
        if tag.startswith("3701"):
            folder = path[:-1]
            name = next(
                (
                    ole.openstream([*folder, f"__substg1.0_{wanted}"]).read()
                    for wanted in ("3707001F", "3704001F")
                    if (*folder, f"__substg1.0_{wanted}") in streams
                ),
                b"",
            ).decode("utf-16-le", "replace")
            yield Part(name or where or "attachment", ole.openstream(list(path)).read())
        elif tag[4:8] in ("001F", "001E", "0102"):
            prefix = f"{where}/" if where else ""
            title = _OUTLOOK_TEXTS.get(tag[:4], f"property {tag[:4]}")
            yield Part(prefix + title, ole.openstream(list(path)).read())
