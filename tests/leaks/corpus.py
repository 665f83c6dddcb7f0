"""Files made for tests: good ones of each format, and malformed ones, with the patient SECRET."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

SECRET = "Kervadec"
"""A value that is in every file and that no message may repeat."""

ROWS = [
    [str(n), f"{SECRET} {n}", f"{n / 7:.2f}", f"2021-02-{n % 28 + 1:02d}"] for n in range(1, 200)
]
NAMES = ["id", "nom", "valeur", "date_prelevement"]


def csv_text(delimiter: str = ";") -> str:
    return "".join(delimiter.join(row) + "\n" for row in [NAMES, *ROWS])


def table() -> pa.Table:
    return pa.table(
        {name: list(column) for name, column in zip(NAMES, zip(*ROWS, strict=True), strict=True)}
    )


def parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table(), sink)
    return sink.getvalue()


def feather() -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(table(), sink)
    return sink.getvalue()


def arrow_stream() -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table())
    return sink.getvalue()


def xlsx() -> bytes:
    book = openpyxl.Workbook()
    for row in [NAMES, *ROWS]:
        book.active.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def sqlite() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE patient (id, nom, valeur, date_prelevement)")
    database.executemany("INSERT INTO patient VALUES (?, ?, ?, ?)", ROWS)
    database.commit()
    return database.serialize()


def archive(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)
    return sink.getvalue()


def tar(*members: tuple[str, bytes | None]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            file.addfile(info, io.BytesIO(data or b""))
    return sink.getvalue()


def copy_dump() -> bytes:
    rows = "".join("\t".join(row) + "\n" for row in ROWS)
    return (
        "--\n-- PostgreSQL database dump\n--\nSET client_encoding = 'UTF8';\n"
        "CREATE TABLE dpi.patient (\n    id integer NOT NULL\n);\n"
        f"COPY dpi.patient ({', '.join(NAMES)}) FROM stdin;\n{rows}\\.\n\n"
    ).encode()


def insert_dump() -> bytes:
    rows = ",\n".join(f"({r[0]},'{r[1]}',{r[2]},'{r[3]}')" for r in ROWS)
    return f"INSERT INTO `patient` (`{'`, `'.join(NAMES)}`) VALUES {rows};\n".encode()


def custom_dump(*, data: bool = True) -> bytes:
    """A dump in custom format without compression, as pg_dump of PostgreSQL 15 writes it."""

    def integer(value: int) -> bytes:
        return struct.pack("<Bi", value < 0, abs(value))

    def text(value: str | None) -> bytes:
        return integer(-1) if value is None else integer(len(value)) + value.encode()

    copy = f"COPY dpi.patient ({', '.join(NAMES)}) FROM stdin;\n"
    head = b"PGDMP" + bytes([1, 14, 0, 4, 8, 1]) + integer(0) + integer(0) * 7
    head += text("dpi") + text("15.14") + text("15.14") + integer(1)
    head += integer(7) + integer(1) + text("0") + text("0") + text("patient") + text("TABLE DATA")
    head += integer(3) + text("") + text("") + text(copy) + text("dpi") + text("") + text("")
    head += text("postgres") + text("false") + text(None) + bytes(9)
    rows = "".join("\t".join(row) + "\n" for row in ROWS).encode() + b"\\.\n\n\n"
    block = b"\x01" + integer(7) + integer(len(rows)) + rows + integer(0)
    return head + (block if data else b"")


def json_rows() -> bytes:
    return json.dumps([dict(zip(NAMES, row, strict=True)) for row in ROWS]).encode()


def json_lines() -> bytes:
    return b"".join(json.dumps(dict(zip(NAMES, row, strict=True))).encode() + b"\n" for row in ROWS)


GOOD: dict[str, Callable[[], bytes]] = {
    "csv": lambda: csv_text().encode(),
    "quoted": lambda: csv_text(",").replace(SECRET, f'"{SECRET}, ""x"""').encode(),
    "utf-16": lambda: csv_text("\t").encode("utf-16"),
    "parquet": parquet,
    "feather": feather,
    "arrows": arrow_stream,
    "xlsx": xlsx,
    "sqlite": sqlite,
    "json": json_rows,
    "jsonl": json_lines,
    "copy": copy_dump,
    "insert": insert_dump,
    "custom": custom_dump,
    "zip": lambda: archive(a__csv=csv_text().encode()),
    "tar": lambda: tar(("a.csv", csv_text().encode())),
    "gz": lambda: gzip.compress(csv_text().encode(), mtime=0),
    "bz2": lambda: bz2.compress(csv_text().encode()),
    "xz": lambda: lzma.compress(csv_text().encode()),
    "zst": lambda: pa.compress(csv_text().encode(), "zstd", asbytes=True),
    "toc": lambda: tar(("toc.dat", custom_dump(data=False))),
}


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def encrypted_zip() -> bytes:
    data = bytearray(archive(a__csv=csv_text().encode()))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def stored(member: str, link: bool = False) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        info = zipfile.ZipInfo(member)
        info.external_attr = (0o120777 if link else 0o100644) << 16
        file.writestr(info, "/etc/passwd")
    return sink.getvalue()


def nested(depth: int) -> bytes:
    data = csv_text().encode()
    for _ in range(depth):
        data = gzip.compress(data, mtime=0)
    return data


def ragged() -> bytes:
    rng = random.Random(1)
    rows = (",".join(row + [SECRET] * rng.randrange(4)) for row in ROWS)
    return "\n".join([",".join(NAMES), *rows]).encode()


def bomb_sheet() -> bytes:
    """A workbook with two cells, as far from each other as they can be."""
    book = openpyxl.Workbook()
    book.active["A1"], book.active["B1"] = SECRET, "nom"
    book.active["XFD1048576"] = 2
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def malformed() -> Iterator[tuple[str, bytes]]:
    """Names and contents of files that hold no table which can be read."""
    rng = random.Random(20)
    text = csv_text().encode()
    yield from {
        "empty": b"",
        "blank": b" \n\r\n\t \n",
        "zeros": bytes(5_000),
        "rubbish": rng.randbytes(20_000),
        "rubbish-without-nul": bytes(b or 7 for b in rng.randbytes(20_000)),
        "nul-inside.csv": text[:3000] + b"\0" + text[3000:],
        "nul-late.csv": text * 40 + b"1;\0;2;3\n",
        "header-only.csv": b"id;nom;date_naissance\n",
        "header-only-bom.csv": "\ufeffid,nom\r\n".encode(),
        "sep-only.csv": b"sep=;\n",
        "comments-only.csv": b"# id;nom\n",
        "one-value.csv": f"{SECRET}\n".encode(),
        "unclosed.csv": text + f'300;"{SECRET};1;2021-01-01\n301;x;1;2021-01-01\n'.encode(),
        "unclosed-long.csv": text + b'300;"' + text * 400,
        "ragged.csv": ragged(),
        "ragged-late.csv": text * 60 + f"{SECRET};1;2;3;4;5;6\n".encode() * 1000,
        "huge-field.csv": text + b"300;" + b"x" * (5 << 20) + b";1;2021-01-01\n",
        "utf-16-odd.csv": csv_text().encode("utf-16")[:-1],
        "utf-16-surrogate.csv": csv_text().encode("utf-16-le") + b"\x00\xd8\x41\x00" * 5,
        "utf-32.csv": csv_text().encode("utf-32"),
        "parquet-magic": b"PAR1",
        "parquet-footer": parquet()[:-8] + b"\xff\xff\xff\x7fPAR1",
        "parquet-empty": _empty_parquet(),
        "arrow-magic": b"ARROW1\0\0",
        "arrow-stream-magic": b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        "scalar.json": f'"{SECRET}"'.encode(),
        "number.json": b"42",
        "scalars.json": b"[1, 2, 3]",
        "empty-array.json": b"[]",
        "empty-object.json": b"{}",
        "empty-rows.json": b"[{}, {}]",
        "deep.json": b"[" * 100_000,
        "deep-object.json": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        "trailing.json": json_rows() + b" x",
        "mixed.json": f'[{{"a": 1}}, "{SECRET}"]'.encode(),
        "second-line.jsonl": json_lines() + f'{{"nom": "{SECRET}'.encode(),
        "broken-line.jsonl": json_lines() + b"{nom: 1}\n" + json_lines(),
        "unquoted.json": b'[{"a": 1}, {b: 2}]',
        "schema.sql": b"-- PostgreSQL database dump\nCREATE TABLE t (id integer);\n",
        "no-end.sql": copy_dump().replace(b"\\.\n", b""),
        "insert-cut.sql": cut(insert_dump(), 0.5),
        "insert-in-string.sql": insert_dump()[:-20],
        "insert-widths.sql": b"INSERT INTO t (a, b) VALUES (1, 2, 3);",
        "insert-no-values.sql": b"INSERT INTO t (a, b) VALUES",
        "insert-select.sql": b"INSERT INTO t (a) SELECT 1;",
        "copy-empty.sql": b"COPY t (a) FROM stdin;\n\\.\n",
        "schema.dump": custom_dump(data=False),
        "version.dump": custom_dump().replace(b"PGDMP\x01\x0e", b"PGDMP\x09\x0e"),
        "compression.dump": custom_dump()[:11] + b"\0\1" + custom_dump()[13:],
        "magic.dump": b"PGDMP",
        "sqlite-header": sqlite()[:100],
        "sqlite-empty.db": _empty_sqlite(),
        "sqlite-page": b"".join((sqlite()[:4096], rng.randbytes(len(sqlite()) - 4096))),
        "encrypted.zip": encrypted_zip(),
        "encrypted.xlsx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + rng.randbytes(4096),
        "no-data.zip": archive(readme__pdf=b"%PDF-1.7", logo__png=b"\x89PNG\r\n"),
        "no-members.zip": archive(),
        "document.docx": archive(
            **{"[Content_Types]__xml": b"<a/>", "word/document__xml": b"<a/>"}
        ),
        "no-sheet.xlsx": archive(**{"[Content_Types]__xml": b"<a/>", "xl/workbook__xml": b"<a/>"}),
        "entities.xlsx": archive(
            **{"xl/workbook__xml": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}
        ),
        "far.xlsx": bomb_sheet(),
        "crc.zip": _flipped(archive(a__csv=text), 60),
        "link.zip": stored("a.csv", link=True),
        "folders.tar": tar(("a", None), ("a/b", None)),
        "checksum.tar": _flipped(tar(("a.csv", text)), 150),
        "contents.tar": tar(("toc.dat", custom_dump()[:60])),
        "deep.gz": nested(5),
        "bomb.gz": gzip.compress(bytes(100 << 20), mtime=0),
        "crc.gz": gzip.compress(text, mtime=0)[:-8] + bytes(8),
        "image.png": b"\x89PNG\r\n\x1a\n" + rng.randbytes(500),
        "image.jpg": b"\xff\xd8\xff\xe0" + rng.randbytes(500),
        "document.pdf": b"%PDF-1.7\n" + SECRET.encode(),
        "program": b"\x7fELF\x02\x01\x01" + bytes(9) + rng.randbytes(500),
        "page.html": f"<!DOCTYPE html><table><tr><td>{SECRET}</td></tr></table>".encode(),
        "data.xml": f"<?xml version='1.0'?><nom>{SECRET}</nom>".encode(),
        "binary.copy": b"PGCOPY\n\xff\r\n\0" + bytes(20),
        "archive.7z": b"7z\xbc\xaf\x27\x1c" + bytes(40),
        "archive.rar": b"Rar!\x1a\x07\x00" + bytes(40),
        "message.pgp": b"-----BEGIN PGP MESSAGE-----\n",
    }.items()
    for kind in ("parquet", "feather", "arrows", "xlsx", "sqlite", "json", "custom", "copy"):
        for share in (0.1, 0.5, 0.9):
            yield f"cut-{kind}-{share}", cut(GOOD[kind](), share)
    for kind in ("zip", "tar", "gz", "bz2", "xz", "zst"):
        for share in (0.3, 0.6):
            yield f"cut-{kind}-{share}", cut(GOOD[kind](), share)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _empty_parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table().slice(0, 0), sink)
    return sink.getvalue()


def _empty_sqlite() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE patient (id)")
    return database.serialize()


def special(folder: Path) -> Iterator[Path]:
    """Things in a folder that are no regular files."""
    os.mkfifo(folder / "fifo")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder / "loop")
    yield from (folder / name for name in ("fifo", "dangling", "loop", "missing", "a\nb"))
    yield folder


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the data with something changed, as accidents and attackers do."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) or 1)
        match rng.randrange(6):
            case 0 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at] = rng.choice((0, 255, 34, 39, 44, 92, 10, 123, 91))
            case 2:
                del changed[at : at + rng.choice((1, 4, 100))]
            case 3:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 60)))
            case 4:
                del changed[at:]
            case _:
                changed[at:at] = changed[at : at + rng.choice((5, 300))]
    return bytes(changed)
