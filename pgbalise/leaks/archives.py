"""Files that hold files: unpacked into a folder, and each file in them read as what it is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import pyarrow as pa

from pgbalise.errors import InvalidLeak
from pgbalise.leaks import columnar, delimited, documents, pgdump, spreadsheet, sqlite, statements
from pgbalise.leaks.kind import HEAD, Kind, foreign, kind_of
from pgbalise.leaks.table import LeakTable
from pgbalise.leaks.unpacking import Budget

DEPTH: Final = 3
"""Archives within archives."""

MEMBERS: Final = 10_000
"""Files of one archive."""

_STEP: Final = 1 << 20
_WORKBOOK: Final = ("xl/workbook.xml", "xl/workbook.bin")
_ODS: Final = b"application/vnd.oasis.opendocument.spreadsheet"
PROBLEMS: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    pa.ArrowException,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
)
"""What the readers of damaged archives raise."""


@dataclass
class Reading:
    """The reading of one leak: where it unpacks, and what it had to leave out."""

    folder: Path
    budget: Budget
    skipped: list[str] = field(default_factory=list)

    def tables(self, path: Path, name: str, depth: int = 0) -> list[LeakTable]:
        """Return the tables in a file, whatever it is.

        Raise InvalidLeak when nothing in it can be read.
        """
        with path.open("rb") as file:
            head = file.read(HEAD)
        if not head.strip():
            raise InvalidLeak(f"{name}: the file is empty")
        kind = kind_of(head)
        match kind:
            case Kind.PARQUET | Kind.ARROW_FILE | Kind.ARROW_STREAM:
                return columnar.read(path, name, kind)
            case Kind.SQLITE:
                return _some(sqlite.read(path, name), name, kind)
            case Kind.COMPOUND:
                return spreadsheet.read(path, name, self.folder)
            case Kind.PG_CUSTOM:
                return pgdump.read_custom(path, name, self.folder, self.budget)
            case Kind.JSON:
                return documents.read(path, name, head, self.folder)
            case Kind.SQL:
                return statements.read(path, name, head, self.folder)
            case Kind.TEXT:
                return delimited.read(path, name, head)
            case Kind.OTHER:
                what = foreign(head) or "a binary file of no known format"
                raise InvalidLeak(f"{name}: the file is {what}")
        if depth >= DEPTH:
            raise InvalidLeak(f"{name}: more than {DEPTH} archives within each other")
        try:
            if kind is Kind.ZIP:
                return self._zip(path, name, depth)
            if kind is Kind.TAR:
                return self._tar(path, name, depth)
            return self._stream(path, name, kind, depth)
        except PROBLEMS:
            raise InvalidLeak(f"{name}: the {kind.value} is damaged or cut") from None

    def _stream(self, path: Path, name: str, kind: Kind, depth: int) -> list[LeakTable]:
        target = self.budget.file(self.folder)
        with decompressed(path, kind) as stream:
            self.budget.write(iter(lambda: stream.read(_STEP), b""), target, name)
        return self.tables(target, name, depth + 1)

    def _zip(self, path: Path, name: str, depth: int) -> list[LeakTable]:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            names = {info.filename for info in members}
            if not names.isdisjoint(_WORKBOOK):
                self._would_fit(members, name)
                return spreadsheet.read(path, name, self.folder)
            if "mimetype" in names and beginning(archive, "mimetype", len(_ODS)) == _ODS:
                self._would_fit(members, name)
                return spreadsheet.read(path, name, self.folder)
            if "[Content_Types].xml" in names:
                raise InvalidLeak(f"{name}: the file is an office document, but no workbook")
            if any(info.flag_bits & 1 for info in members):
                raise InvalidLeak(f"{name}: the zip archive is encrypted", hint="unpack it first")
            files = []
            for info in members[: MEMBERS + 1]:
                if is_link(info):
                    continue
                with archive.open(info) as stream:
                    files.append((info.filename, self._unpacked(stream, name)))
        return self._members(files, name, depth)

    def _would_fit(self, members: list[zipfile.ZipInfo], name: str) -> None:
        # Read but kept nowhere: what the directory says about sizes may be a lie.
        self.budget.claim(sum(info.file_size for info in members), name)

    def _tar(self, path: Path, name: str, depth: int) -> list[LeakTable]:
        files: list[tuple[str, Path]] = []
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None and len(files) <= MEMBERS:
                    files.append((member.name, self._unpacked(stream, name)))
        return self._members(files, name, depth)

    def _unpacked(self, stream: IO[bytes], name: str) -> Path:
        target = self.budget.file(self.folder)
        self.budget.write(iter(lambda: stream.read(_STEP), b""), target, name)
        return target

    def _members(self, files: list[tuple[str, Path]], name: str, depth: int) -> list[LeakTable]:
        if not files:
            raise InvalidLeak(f"{name}: the archive has no files")
        if len(files) > MEMBERS:
            raise InvalidLeak(f"{name}: the archive has more than {MEMBERS} files")
        by_base = {PurePosixPath(member).name: path for member, path in files}
        if "toc.dat" in by_base:
            toc = by_base["toc.dat"]
            return pgdump.read_folder(by_base, toc, name, self.folder, self.budget)
        tables: list[LeakTable] = []
        problems: list[InvalidLeak] = []
        for member, path in files:
            try:
                tables += self.tables(path, f"{name}: {printable(member)}", depth + 1)
            except InvalidLeak as problem:
                problems.append(problem)
        if not tables and len(problems) == 1:
            raise problems[0]
        if not tables:
            raise InvalidLeak(f"{name}: none of the {len(files)} files in it can be read")
        self.skipped += [problem.message for problem in problems]
        return tables


def _some(tables: list[LeakTable], name: str, kind: Kind) -> list[LeakTable]:
    if not tables:
        raise InvalidLeak(f"{name}: the {kind.value} has no rows")
    return tables


def printable(name: str) -> str:
    """Return a name on one line, whatever characters are in it."""
    return "".join(c if c.isprintable() else "?" for c in name)


def beginning(archive: zipfile.ZipFile, member: str, count: int) -> bytes:
    """Return the first bytes of a member; whatever its size, no more is unpacked."""
    with archive.open(member) as stream:
        return stream.read(count)


def is_link(info: zipfile.ZipInfo) -> bool:
    """Say whether a member of a zip archive is a symbolic link."""
    return (info.external_attr >> 28) == 0o12


@contextmanager
def decompressed(path: Path, kind: Kind) -> Iterator[Any]:
    """Open a compressed file (GZIP, BZIP2, XZ, ZSTD, LZ4) as a stream of what it holds."""
    if kind in (Kind.ZSTD, Kind.LZ4):
        name = "zstd" if kind is Kind.ZSTD else "lz4"
        with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, name) as stream:
            yield stream
        return
    opener: Any = {Kind.GZIP: gzip.open, Kind.BZIP2: bz2.open, Kind.XZ: lzma.open}[kind]
    with opener(path) as stream:
        yield stream
