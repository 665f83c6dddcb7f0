"""Files, folders and standard input, held against the decoys."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from pgbalise.errors import EnvironmentProblem, InvalidInput, InvalidLeak
from pgbalise.leaks.archives import printable
from pgbalise.leaks.kind import HEAD, Kind, kind_of
from pgbalise.leaks.unpacking import MAX_UNPACKED, Budget
from pgbalise.scan.book import Book
from pgbalise.scan.mail import is_mail, is_mailbox
from pgbalise.scan.markup import without_names
from pgbalise.scan.opening import Opening, Text
from pgbalise.scan.stream import PIECE, places

STANDARD_INPUT: Final = "-"

_KEPT: Final = 100_000
"""Hits that are kept; of a file full of decoys the first ones say enough."""


@dataclass(frozen=True)
class Hit:
    """A decoy found.

    ``member`` says where in the file, empty for the file itself; ``offset`` (bytes, from 0) and
    ``line`` (from 1) are those in the file, or in the member's text; ``written`` is what stands
    there.
    """

    file: str
    member: str
    offset: int
    line: int
    decoy: str
    kind: str
    certain: bool
    written: str = field(repr=False)

    def as_dict(self, *, show: bool = False) -> dict[str, Any]:
        """Return what JSON can hold; the decoy's value only if ``show``."""
        body: dict[str, Any] = {
            "file": self.file,
            "member": self.member or None,
            "offset": self.offset,
            "line": self.line,
            "decoy": self.decoy,
            "kind": self.kind,
            "certainty": "certain" if self.certain else "possible",
        }
        return {**body, "text": self.written} if show else body


@dataclass(frozen=True)
class Unread:
    """A file, or a member of one, that could not be read as a whole, and why."""

    file: str
    member: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"file": self.file, "member": self.member or None, "reason": self.reason}


@dataclass
class Findings:
    """What a scan found: hits in the order of files and places, and what could not be read."""

    files: int = 0
    bytes: int = 0
    hits: list[Hit] = field(default_factory=list)
    found: int = 0
    unread: list[Unread] = field(default_factory=list)

    @property
    def status(self) -> int:
        """Exit status, as grep's: 0 found, 1 not found, 2 not found and not everything was read."""
        if self.found:
            return 0
        return 2 if self.unread else 1

    def as_dict(self, *, show: bool = False) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "found": self.found,
            "hits": [hit.as_dict(show=show) for hit in self.hits],
            "unreadable": [unread.as_dict() for unread in self.unread],
        }


def scan(
    book: Book,
    paths: Sequence[str],
    standard_input: BinaryIO,
    *,
    possible: bool = False,
    limit: int = MAX_UNPACKED,
    progress: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Look for decoys in files, in folders and all that is below them, and in ``-``.

    Symbolic links below a folder are not followed, devices, pipes and sockets left out. ``limit``
    is what one file may take unpacked, bytes; ``progress`` is told of each file. Raise InvalidInput
    when a path is not there, EnvironmentProblem when the disk is full or a library is missing.
    """
    for path in paths:
        # an empty one would be the current folder: a variable that is not set
        if path != STANDARD_INPUT and not (path and Path(path).exists()):
            raise InvalidInput(
                f"{printable(path) or 'an empty name'}: there is no such file or folder"
            )
    findings = Findings()
    search = _Search(book, findings, possible, limit)
    for path in paths:
        if path == STANDARD_INPUT:
            progress("standard input")
            search.stream(standard_input)
            continue
        for file in _files(Path(path), findings):
            progress(printable(str(file)))
            search.file(file)
    return findings


def _files(path: Path, findings: Findings) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return

    def complain(problem: OSError) -> None:
        reason = problem.strerror or "cannot be read"
        findings.unread.append(Unread(printable(str(problem.filename)), "", reason))

    for folder, folders, names in os.walk(path, onerror=complain):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            try:
                if stat.S_ISREG(file.lstat().st_mode):
                    yield file
            except OSError as problem:
                complain(problem)


@dataclass
class _Search:
    book: Book
    findings: Findings
    possible: bool
    limit: int

    def file(self, path: Path, name: str = "") -> None:
        shown = name or printable(str(path))
        self.findings.files += 1
        try:
            size = path.stat().st_size
            with tempfile.TemporaryDirectory(prefix="pgbalise-scan-") as folder:
                opening = Opening(Path(folder), Budget(size, self.limit))
                for text in opening.texts(path):
                    self._text(shown, text)
            self.findings.bytes += size
        except OSError as problem:
            reason = problem.strerror or "cannot be read"
            self.findings.unread.append(Unread(shown, "", reason))
            return
        self.findings.unread += [Unread(shown, *problem) for problem in opening.problems]

    def stream(self, stream: BinaryIO) -> None:
        """Read what comes as it comes, if it is text; else all of it first."""
        head = stream.read(HEAD)
        kind = kind_of(head)
        pieces = chain((head,), iter(lambda: stream.read(PIECE), b""))
        plain = kind in (Kind.TEXT, Kind.SQL, Kind.JSON) and not is_mail(head)
        if plain and not is_mailbox(head):
            self.findings.files += 1
            change = without_names if kind is Kind.JSON else None
            self._text(STANDARD_INPUT, Text("", self._counted(pieces), change))
            return
        with tempfile.NamedTemporaryFile(prefix="pgbalise-scan-") as file:
            try:
                for piece in pieces:
                    file.write(piece)
                file.flush()
            except OSError:
                raise EnvironmentProblem(
                    "no room to keep standard input", hint="set TMPDIR to a folder with more"
                ) from None
            self.file(Path(file.name), STANDARD_INPUT)

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.findings.bytes += len(piece)
            yield piece

    def _text(self, shown: str, text: Text) -> None:
        try:
            self._places(shown, text)
        except InvalidLeak as problem:
            reason = problem.message.rpartition(": ")[2]
            self.findings.unread.append(Unread(shown, text.member, reason))

    def _places(self, shown: str, text: Text) -> None:
        for place in places(self.book, text.pieces, possible=self.possible, change=text.change):
            self.findings.found += 1
            if len(self.findings.hits) < _KEPT:
                written = place.text.replace(b"\0", b"").decode("utf-8", "replace")
                self.findings.hits.append(
                    Hit(
                        shown,
                        text.member,
                        place.offset,
                        place.line,
                        place.sighting.decoy.name,
                        place.sighting.kind.value,
                        place.sighting.certain,
                        " ".join(written.split()),
                    )
                )
