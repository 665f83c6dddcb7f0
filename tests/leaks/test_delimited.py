from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.errors import InvalidLeak
from pgbalise.leaks import LeakTable, open_leak
from tests.conftest import Connection
from tests.leaks.corpus import csv_text

Rows = list[list[str | None]]


def only_table(data: bytes) -> tuple[LeakTable, Rows]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "leak"
        path.write_bytes(data)
        with open_leak(path) as leak:
            (table,) = leak.tables
            return table, rows_of(table)


def rows_of(table: LeakTable) -> Rows:
    return [
        [column[n] for column in columns]
        for batch in table.batches()
        for columns in [[column.to_pylist() for column in batch.columns]]
        for n in range(batch.num_rows)
    ]


def written(
    rows: Rows, delimiter: str, quote: str, newline: str, escape: bool, everything: bool
) -> str:
    def field(value: str | None) -> str:
        if value is None:
            return ""
        special = delimiter + quote + "\r\n\\" if escape else delimiter + quote + "\r\n"
        if not everything and value not in ("", "\\N") and not set(value) & set(special):
            return value
        if escape:
            value = value.replace("\\", "\\\\").replace(quote, "\\" + quote)
        return quote + (value if escape else value.replace(quote, quote * 2)) + quote

    return "".join(delimiter.join(map(field, row)) + newline for row in rows)


WORDS = st.sampled_from(
    ["Zoé", "Anne-Sophie", "12,5", "03/02/2021", "œdème", "N'Diaye", "", None, "\\N", "5 €"]
)
WILD = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc", "Cs", "Cn"]),
    max_size=12,
) | st.sampled_from(['a "b"', "x\ny", "l\r\nm", "tab\there", "a;b,c|d", "''", '"', "\ufeff", " "])


def tables(values: st.SearchStrategy[str | None]) -> st.SearchStrategy[Rows]:
    rows = st.lists(st.tuples(values, values), min_size=4, max_size=12)
    return rows.map(lambda drawn: [[str(100 + n), *row] for n, row in enumerate(drawn)])


DIALECTS = st.tuples(
    st.sampled_from(",;\t|:^\x01"),
    st.sampled_from("\"'"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tables(WILD | WORDS), DIALECTS, st.booleans())
def test_quoted_text_of_any_content_comes_back_cell_for_cell(
    rows: Rows, dialect: tuple[str, str, str, bool], header: bool
) -> None:
    # Only a quote behind a backslash tells that backslashes escape.
    rows = [["99", f"a {dialect[1]} b", "c"], *rows]
    names: Rows = [["id", "nom", "prenom"]] if header else []
    table, read = only_table(written(names + rows, *dialect, True).encode())
    assert table.named == header
    assert read == rows


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    tables(WORDS),
    DIALECTS,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]),
)
def test_text_quoted_where_it_must_be_comes_back_in_every_encoding(
    rows: Rows, dialect: tuple[str, str, str, bool], encoding: str
) -> None:
    rows = [["99", f"a {dialect[1]} b", "c"], *rows]
    text = written([["id", "nom", "prenom"], *rows], *dialect, False)
    table, read = only_table(text.encode(encoding))
    assert table.columns == ("id", "nom", "prenom")
    assert read == rows


@pytest.mark.parametrize("encoding", ["cp1252", "iso8859-15", "cp850", "mac-roman"])
def test_a_one_byte_code_page_is_told_by_its_letters(encoding: str) -> None:
    text = "id;nom;commune\n1;Hélène;Besançon\n2;Gaël;Évreux\n3;Zoé;Nîmes\n"
    assert only_table(text.encode(encoding))[1][0] == ["1", "Hélène", "Besançon"]


def test_the_ligature_of_latin_9_is_not_a_half() -> None:
    text = "id;organe\n1;cœur\n2;sœur\n"
    assert only_table(text.encode("iso8859-15"))[1] == [["1", "cœur"], ["2", "sœur"]]
    text = "id;dose\n1;½ comprimé\n2;¼ comprimé\n"
    assert only_table(text.encode("cp1252"))[1][0] == ["1", "½ comprimé"]


def test_utf_8_that_was_cut_inside_a_character_stays_utf_8() -> None:
    data = "id;nom\n1;Zoé\n2;Gaël\n3;Hélène\n4;é".encode()[:-1]
    assert only_table(data)[1][:3] == [["1", "Zoé"], ["2", "Gaël"], ["3", "Hélène"]]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nid;nom\n1;a\n2;b\n",
        "# exporté du DPI\n# le 3\nid;nom\n1;a\n2;b\n",
        "Export du DPI\n\nid;nom\n1;a\n2;b\n",
        "id;nom;\n1;a;\n2;b;\n",
        "id;nom\n1;a;\n2;b;\n",
        "id;nom\n1;a\nid;nom\n2;b\n",
        "id;nom\n1;a\n\n\n2;b\n\n",
        "\ufeffid;nom\r\n1;a\r\n2;b\r\n",
        "id;nom\n1;a\n2;b\n(2 lignes)\n",
        " id | nom \n----+-----\n  1 | a\n  2 | b\n(2 rows)\n",
        "+----+-----+\n| id | nom |\n+----+-----+\n|  1 | a   |\n|  2 | b   |\n+----+-----+\n",
        "| id | nom |\n|----|-----|\n| 1 | a |\n| 2 | b |\n",
        "id\tnom\n1\ta\n2\tb\n\\.\n",
    ],
)
def test_what_stands_around_a_table_is_no_row_of_it(text: str) -> None:
    table, rows = only_table(text.encode())
    assert table.columns == ("id", "nom")
    assert rows == [["1", "a"], ["2", "b"]]


def test_rows_of_another_width_are_repaired_by_rule_only() -> None:
    text = csv_text() + "300;x\n301;y;1.0;2021-02-03;;\n302;z;1;2;3\n"
    rows = only_table(text.encode())[1]
    assert rows[-2:] == [["300", "x", None, None], ["301", "y", "1.0", "2021-02-03"]]


def test_names_are_made_unique_and_blanks_are_numbered() -> None:
    table, _ = only_table(b"date,,date,valeur\n2021-01-01,a,2021-01-02,3\n2021-01-01,b,,4\n")
    assert table.columns == ("date", "column 2", "date 2", "valeur")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Dupont,Jean\nMartin,Paul\nDurand,Luc\n", False),
        ("nom,prenom\nDupont,Jean\nMartin,Paul\n", True),
        ("birth_dt,lab_unit\n2021-01-01,g\n2021-01-02,g\n", True),
        ("1,M\n2,F\n3,M\n", False),
        ("XQ,ZZ\n17,a\n18,b\n", True),
        ("patientId,hospitalName\na,b\nc,d\n", True),
        ("numéro\n17\n18\n", True),
    ],
)
def test_a_header_is_told_from_data(text: str, named: bool) -> None:
    assert only_table(text.encode())[0].named == named


def test_a_decimal_comma_is_no_delimiter() -> None:
    _, rows = only_table(b"1;12,5;3,2\n2;13,5;4,2\n3;11,0;5,5\n")
    assert rows[0] == ["1", "12,5", "3,2"]


def test_a_blank_behind_every_delimiter_belongs_to_no_value() -> None:
    _, rows = only_table(b"39, State-gov, M\n50, , F\n38, Private , F\n")
    assert rows == [["39", "State-gov", "M"], ["50", None, "F"], ["38", "Private", "F"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_what_is_no_text_far_behind_the_sample_is_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "leak"
    path.write_bytes((csv_text() * 700 + "1;a\0;2;3\n").encode(encoding))
    with pytest.raises(InvalidLeak, match="NUL"), open_leak(path) as leak:
        list(leak.tables[0].batches())


def test_names_of_rows_as_r_writes_them_are_a_column() -> None:
    table, rows = only_table(b'"id"\t"sexe"\n"1"\t17\t"M"\n"2"\t18\t"F"\n"3"\t19\t"F"\n')
    assert table.columns == ("column 1", "id", "sexe")
    assert rows[0] == ["1", "17", "M"]


@pytest.mark.parametrize("options", ["", "(FORMAT csv, HEADER)", "(FORMAT csv, DELIMITER ';')"])
def test_what_psql_copies_comes_back(empty_db: Connection, tmp_path: Path, options: str) -> None:
    values = ["a", None, "", "x\ty", "l\nm\\n", '"q"', "\\.", "é;,", "\r"]
    if not options:
        # In CSV, COPY writes this as it writes nothing else: NULL is empty there.
        values.append("\\N")
    empty_db.execute("CREATE TABLE t (id int, nom text)")
    with empty_db.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", list(enumerate(values)))
    with empty_db.cursor().copy(f"COPY t TO STDOUT {options}") as copy:
        data = b"".join(copy)
    assert [row[1] for row in only_table(data)[1]] == values


def test_what_pandas_writes_comes_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"nom": ['a "b"', "c;d", None, "l\nm"] * 5, "valeur": [1.5, 2, None, 3] * 5}
    )
    for separator, decimal, encoding in itertools.product(",;\t", ".,", ["utf-8", "utf-16"]):
        frame.to_csv(tmp_path / "x", sep=separator, decimal=decimal, encoding=encoding, index=False)
        _, rows = only_table((tmp_path / "x").read_bytes())
        assert rows[:3] == [['a "b"', f"1{decimal}5"], ["c;d", f"2{decimal}0"], [None, None]]


def test_mysql_writes_newlines_behind_a_backslash() -> None:
    data = b"1\ta\\\nb\t\\N\n2\tc\\\td\tx\\\\y\n3\te\tf\n"
    assert only_table(data)[1] == [["1", "a\nb", None], ["2", "c\td", "x\\y"], ["3", "e", "f"]]


def test_batches_start_anew_and_a_large_file_has_several(tmp_path: Path) -> None:
    path = tmp_path / "leak.csv"
    path.write_text("id;nom;valeur;date\n" + csv_text()[31:] * 700)
    with open_leak(path) as leak:
        first = [batch.num_rows for batch in leak.tables[0].batches()]
        assert first == [batch.num_rows for batch in leak.tables[0].batches()]
    assert len(first) > 1
    assert max(first) < 200_000


def test_damage_far_behind_the_sample_is_an_error_of_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "leak.csv"
    path.write_text(csv_text() * 100 + "1;2;3;4;5;6;7\n" * 5_000)
    with open_leak(path) as leak, pytest.raises(InvalidLeak, match="number of fields"):
        list(leak.tables[0].batches())
