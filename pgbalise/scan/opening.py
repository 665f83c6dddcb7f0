"""What is in a file, as texts: archives and documents are opened, whatever they are in.

A file is told by its first bytes, never by its name. Archives, mail and documents are unpacked into
a folder, one file at a time, within the limits that guard the reading of leaks.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.compute as pc

from pgbalise.errors import EnvironmentProblem, InvalidLeak
from pgbalise.leaks import columnar, pgdump, spreadsheet, sqlite
from pgbalise.leaks.archives import (
    MEMBERS,
    PROBLEMS,
    beginning,
    decompressed,
    is_link,
    printable,
)
from pgbalise.leaks.kind import HEAD, Kind, foreign, kind_of
from pgbalise.leaks.table import LeakTable
from pgbalise.leaks.unpacking import Budget
from pgbalise.scan import mail
from pgbalise.scan.markup import plain_markup, plain_rtf, without_names
from pgbalise.scan.stream import PIECE, Change

DEPTH: Final = 8
"""Files within files."""

_STEP: Final = 1 << 20
_PDF_COST: Final = 16
"""What a PDF draws takes so many times as long to read as other bytes, at least."""
_LARGEST_MARKUP: Final = 64 << 20
_WORKBOOKS: Final = ("xl/workbook.xml", "xl/workbook.bin")
_SHEETS: Final = b"application/vnd.oasis.opendocument.spreadsheet"
_COMPRESSED: Final = (Kind.GZIP, Kind.BZIP2, Kind.XZ, Kind.ZSTD, Kind.LZ4)


@dataclass(frozen=True)
class Text:
    """One text in a file.

    ``member`` says where in it, ``inner.zip!mail.eml!body``, empty for the file itself; ``pieces``
    are its bytes, ``change`` what is done to each before it is read.
    """

    member: str
    pieces: Iterable[bytes] = field(repr=False)
    change: Change | None = None


class Opening:
    """The opening of one file: ``problems`` collects what cannot be read, by member.

    ``folder`` is an empty folder of its own; names in archives are never used in it.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.problems: list[tuple[str, str]] = []
        self._folder = folder
        self._budget = budget

    def texts(self, path: Path, member: str = "", depth: int = 0) -> Iterator[Text]:
        """Yield the texts in a file, whatever it is; each is to be read before the next.

        Raise EnvironmentProblem when the disk is full or a library is missing.
        """
        try:
            yield from self._texts(path, member, depth)
        except EnvironmentProblem:
            raise
        except InvalidLeak as problem:
            self._left_out(member, problem.message.rpartition(": ")[2])
        except RecursionError:
            self._left_out(member, "nested too deep")
        except MemoryError:
            self._left_out(member, "too large to be read")
        except PROBLEMS as problem:
            # the system's own words, of a file that may not be read; libraries' errors have none
            told = problem.strerror if isinstance(problem, OSError) and problem.errno else None
            self._left_out(member, told or "damaged or cut")

    def _left_out(self, member: str, reason: str) -> None:
        self.problems.append((member, reason))

    def _texts(self, path: Path, member: str, depth: int) -> Iterator[Text]:
        with path.open("rb") as file:
            head = file.read(HEAD)
        kind = kind_of(head)
        if depth > DEPTH:
            self._left_out(member, f"more than {DEPTH} files within each other")
            yield Text(member, read(path))
        elif kind is Kind.ZIP:
            yield from self._zip(path, member, depth)
        elif kind is Kind.TAR:
            yield from self._tar(path, member, depth)
        elif kind in _COMPRESSED:
            yield from self._decompressed(path, member, kind, depth)
        elif kind is Kind.COMPOUND:
            yield from self._compound(path, member, depth)
        elif kind in (Kind.PARQUET, Kind.ARROW_FILE, Kind.ARROW_STREAM):
            yield from self._tables(member, lambda: columnar.read(path, "", kind))
        elif kind is Kind.SQLITE:
            yield from self._tables(member, lambda: sqlite.read(path, ""))
        elif kind is Kind.PG_CUSTOM:
            folder, budget = self._folder, self._budget
            yield from self._tables(member, lambda: pgdump.read_custom(path, "", folder, budget))
        elif head.startswith(b"%PDF"):
            yield from self._pdf(path, member, depth)
        elif foreign(head) == "XML or HTML" and path.stat().st_size <= _LARGEST_MARKUP:
            yield Text(member, _cut(plain_markup(path.read_bytes())))
        elif head.startswith(b"{\\rtf") and path.stat().st_size <= _LARGEST_MARKUP:
            yield Text(member, _cut(plain_rtf(path.read_bytes())))
        elif kind is Kind.TEXT and mail.is_mailbox(head):
            yield from self._parts(mail.mailbox_parts(path), member, depth)
        elif kind in (Kind.TEXT, Kind.OTHER) and mail.is_mail(head) and _fits(path):
            yield from self._parts(mail.mail_parts(path), member, depth)
        else:
            yield Text(member, read(path), without_names if kind is Kind.JSON else None)
            what = foreign(head) or ""
            if ": " in what:
                self._left_out(member, what)

    def _inner(self, stream: Iterator[bytes], member: str, depth: int) -> Iterator[Text]:
        target = self._budget.file(self._folder)
        try:
            self._budget.write(stream, target, printable(member))
            yield from self.texts(target, member, depth + 1)
        finally:
            target.unlink(missing_ok=True)

    def _decompressed(self, path: Path, member: str, kind: Kind, depth: int) -> Iterator[Text]:
        with decompressed(path, kind) as stream:
            yield from self._inner(_steps(stream), member, depth)

    def _zip(self, path: Path, member: str, depth: int) -> Iterator[Text]:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            names = {info.filename for info in members}
            sheets = not names.isdisjoint(_WORKBOOKS) or (
                "mimetype" in names and beginning(archive, "mimetype", len(_SHEETS)) == _SHEETS
            )
            if sheets:
                self._budget.claim(sum(info.file_size for info in members), printable(member))
                folder = self._folder
                yield from self._tables(member, lambda: spreadsheet.read(path, "", folder))
            for info in members[:MEMBERS]:
                inner = _joined(member, info.filename)
                if is_link(info):
                    continue
                if info.flag_bits & 1:
                    self._left_out(inner, "encrypted")
                    continue
                try:
                    with archive.open(info) as stream:
                        yield from self._inner(_steps(stream), inner, depth)
                except InvalidLeak:
                    raise
                except PROBLEMS:
                    self._left_out(inner, "damaged or cut")
            if len(members) > MEMBERS:
                self._left_out(member, f"more than {MEMBERS} files")

    def _tar(self, path: Path, member: str, depth: int) -> Iterator[Text]:
        with tarfile.open(path, "r:") as archive:
            for number, info in enumerate(archive):
                if number >= MEMBERS:
                    self._left_out(member, f"more than {MEMBERS} files")
                    return
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is not None:
                    yield from self._inner(_steps(stream), _joined(member, info.name), depth)

    def _parts(self, parts: Iterable[mail.Part], member: str, depth: int) -> Iterator[Text]:
        for part in parts:
            inner = _joined(member, part.name)
            if part.plain:
                yield Text(inner, _cut(part.body))
            elif part.body:
                yield from self._inner(_cut(part.body), inner, depth)

    def _compound(self, path: Path, member: str, depth: int) -> Iterator[Text]:
        import olefile

        try:
            with olefile.OleFileIO(path) as ole:
                if ole.exists("__properties_version1.0"):
                    yield from self._parts(mail.outlook_parts(ole), member, depth)
                elif ole.exists("Workbook") or ole.exists("Book"):
                    folder = self._folder
                    yield from self._tables(member, lambda: spreadsheet.read(path, "", folder))
                else:
                    if ole.exists("EncryptedPackage"):
                        self._left_out(member, "encrypted")
                    streams = ole.listdir(streams=True, storages=False)
                    parts = (mail.Part("/".join(n), ole.openstream(n).read()) for n in streams)
                    yield from self._parts(parts, member, depth)
        except (*PROBLEMS, AttributeError, IndexError, TypeError):
            self._left_out(member, "damaged or cut")
            yield Text(member, read(path))

    def _pdf(self, path: Path, member: str, depth: int) -> Iterator[Text]:
        import pypdf
        from pypdf.errors import PyPdfError

        try:
            reader = pypdf.PdfReader(path)
            if reader.is_encrypted and not reader.decrypt(""):
                self._left_out(member, "encrypted")
                return
            for number, page in enumerate(reader.pages, 1):
                # one page may be listed a thousand times
                drawn = page.get_contents()
                if drawn is not None:
                    self._budget.claim(_PDF_COST * len(drawn.get_data()), printable(member))
                text = page.extract_text().encode("utf-8", "replace")
                yield Text(_joined(member, f"page {number}"), (text,))
            for name, bodies in reader.attachments.items():
                parts = (mail.Part(name, body) for body in bodies)
                yield from self._parts(parts, member, depth)
        except InvalidLeak:
            raise
        except (*PROBLEMS, PyPdfError, AttributeError, LookupError, TypeError, AssertionError):
            self._left_out(member, "damaged or cut")
            yield Text(member, read(path))

    def _tables(self, member: str, opened: Callable[[], list[LeakTable]]) -> Iterator[Text]:
        try:
            for table in opened():
                where = printable(table.name.removeprefix(": "))
                yield Text(_joined(member, where) if where else member, _rows(table))
        except InvalidLeak as problem:
            if "no rows" not in problem.message:
                self._left_out(member, problem.message.rpartition(": ")[2])


def read(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in pieces of the size that is read fastest."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def _steps(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_STEP):
        yield piece


def _fits(path: Path) -> bool:
    return path.stat().st_size <= mail.LONGEST


def _joined(member: str, inner: str) -> str:
    name = printable(inner)
    return f"{member}!{name}" if member else name


def _cut(text: bytes) -> Iterator[bytes]:
    return (text[n : n + PIECE] for n in range(0, len(text), PIECE))


def _rows(table: LeakTable) -> Iterator[bytes]:
    """Yield a table's rows as lines, its values with tabs between them; the header is line 1."""
    yield "\t".join(table.columns).encode("utf-8", "replace") + b"\n"
    for batch in table.batches():
        if batch.num_columns and batch.num_rows:
            columns = [pc.replace_substring(c, "\n", " ") for c in batch.columns]
            lines = pc.binary_join_element_wise(
                *columns, pa.scalar("\t"), null_handling="replace", null_replacement=""
            )
            yield "".join(f"{line}\n" for line in lines.to_pylist()).encode("utf-8", "replace")
