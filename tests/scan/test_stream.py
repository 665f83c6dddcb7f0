"""Decoys in a text that comes in pieces."""

from __future__ import annotations

import random

from pgbalise.decoys.identity import Role
from pgbalise.scan.book import Book
from pgbalise.scan.stream import places
from tests.scan.writing import filler, make_decoys, sentences


def test_offsets_and_lines_do_not_depend_on_where_pieces_end() -> None:
    decoys = make_decoys(40)
    drawn = random.Random(3)
    text, expected = "é", []
    for decoy in decoys:
        text += filler(drawn.randrange(1, 400), decoy.decoy_id)
        ipp = decoy.identity[Role.RECORD_NUMBER]
        text += "IPP:"
        expected.append((len(text.encode()), text.count("\n") + 1, decoy.name, ipp.encode()))
        text += ipp + "\n" + sentences(decoy)[6][1] + "\n"
    raw, book = text.encode(), Book(decoys)

    def found(size: int) -> list[tuple[int, int, str, str, bytes]]:
        pieces = (raw[n : n + size] for n in range(0, len(raw), size))
        return [
            (p.offset, p.line, p.sighting.decoy.name, p.sighting.kind.value, p.text)
            for p in places(book, pieces)
        ]

    whole = found(len(raw))
    assert [(o, line, n, t) for o, line, n, kind, t in whole if kind == "record"] == expected
    assert sum(kind == "person" for *_, kind, _ in whole) == len(decoys)
    for size in (1_000, 4_099, 65_536):
        assert found(size) == whole


def test_a_line_without_end_is_searched() -> None:
    decoy = make_decoys(1)[0]
    mail = decoy.identity[Role.MAIL].encode()
    pieces = [*[b"x" * 1_000_000] * 3, b" " + mail + b" ", b"y" * 1_000_000]
    assert [p.offset for p in places(Book([decoy]), pieces)] == [3_000_001]
