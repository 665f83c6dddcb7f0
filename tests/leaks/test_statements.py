from __future__ import annotations

import sqlite3

import pytest

from tests.leaks.test_delimited import only_table

MYSQL = r"""-- MySQL dump 10.13
/*!40101 SET NAMES utf8 */;
DROP TABLE IF EXISTS `patient`;
CREATE TABLE `patient` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `nom` varchar(40) DEFAULT ',a(',
  `x` enum('a','b') COMMENT 'it''s',
  `d` decimal(5,2),
  PRIMARY KEY (`id`),
  KEY `k` (`nom`,`x`)
) ENGINE=InnoDB;
LOCK TABLES `patient` WRITE;
INSERT INTO `patient` VALUES (1,'L\'Hôte','a',1.50),(2,NULL,0xFF,-3),
(3,_binary 'x\\y\nz','b',.5e3);
INSERT INTO `patient` VALUES (4,'; INSERT INTO `patient` VALUES (9)','','0');
UNLOCK TABLES;
/*!50003 CREATE TRIGGER t BEFORE INSERT ON patient FOR EACH ROW INSERT INTO log VALUES (NEW.id) */;;
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_a_dump_of_mysql_is_read(encoding: str) -> None:
    table, rows = only_table(MYSQL.encode(encoding))
    assert (table.columns, table.named) == (("id", "nom", "x", "d"), True)
    assert rows == [
        ["1", "L'Hôte", "a", "1.50"],
        ["2", None, "\\xff", "-3"],
        ["3", "x\\y\nz", "b", ".5e3"],
        ["4", "; INSERT INTO `patient` VALUES (9)", "", "0"],
    ]


def test_bare_inserts_are_read_whatever_their_layout() -> None:
    text = (
        "insert into d.t(a, \"b c\") values (1, 'it''s'),\n  (2.5, E'x\\ty'::text)"
        ' on conflict do nothing; INSERT INTO d.t (a, "b c") VALUES (now(), TRUE);'
        "INSERT INTO d.t (a, \"b c\") VALUES (CAST('3' AS int), DEFAULT)"
    )
    table, rows = only_table(text.encode())
    assert (table.name, table.columns) == ("leak: d.t", ("a", "b c"))
    assert rows == [["1", "it's"], ["2.5", "x\ty"], [None, "true"], ["3", None]]


def test_inserts_without_names_have_numbered_columns() -> None:
    table, rows = only_table(
        b"INSERT INTO t VALUES (1, 'C:\\temp\\');\nINSERT INTO t VALUES (2, '')"
    )
    assert (table.columns, table.named) == (("column 1", "column 2"), False)
    assert rows == [["1", "C:\\temp\\"], ["2", ""]]


def test_backslashes_escape_where_nothing_else_can_be_meant() -> None:
    _, rows = only_table(b"INSERT INTO t VALUES (1, 'it\\'s');\nINSERT INTO t VALUES (2, 'b');")
    assert rows == [["1", "it's"], ["2", "b"]]


def test_the_dump_of_sqlite_is_read() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (id INTEGER, nom TEXT, x)")
    database.executemany("INSERT INTO t VALUES (?, ?, ?)", [(1, "l'\nm", None), (2, "", b"\xff")])
    table, rows = only_table("\n".join(database.iterdump()).encode())
    assert table.columns == ("id", "nom", "x")
    assert rows == [["1", "l'\nm", None], ["2", "", "\\xff"]]


def test_copy_without_a_column_list_takes_the_table_s_own() -> None:
    text = "CREATE TABLE t (\n  a integer,\n  b numeric(5,2) DEFAULT 0\n);\n"
    text += "COPY t FROM stdin;\n1\t\\N\n\\.\n"
    table, rows = only_table(text.encode())
    assert (table.columns, rows) == (("a", "b"), [["1", None]])
