"""Functions that take SQL, or a relation's name, as text: the grammar cannot see what they read.

Of PostgreSQL 13 to 18 and the modules that come with it.
"""

from __future__ import annotations

from typing import Final

_NAMED: Final = frozenset(
    {
        # pg_catalog
        "cursor_to_xml",
        "cursor_to_xmlschema",
        "database_to_xml",
        "database_to_xml_and_xmlschema",
        "database_to_xmlschema",
        "query_to_xml",
        "query_to_xml_and_xmlschema",
        "query_to_xmlschema",
        "schema_to_xml",
        "schema_to_xml_and_xmlschema",
        "schema_to_xmlschema",
        "table_to_xml",
        "table_to_xml_and_xmlschema",
        "table_to_xmlschema",
        "ts_rewrite",
        "ts_stat",
        "lo_export",
        # what the server's files and its log hold
        "pg_read_binary_file",
        "pg_read_file",
        "pg_logical_slot_get_binary_changes",
        "pg_logical_slot_get_changes",
        "pg_logical_slot_peek_binary_changes",
        "pg_logical_slot_peek_changes",
        # tablefunc
        "connectby",
        "crosstab",
        "crosstab2",
        "crosstab3",
        "crosstab4",
        "crosstab_hash",
        # xml2
        "xpath_table",
        # pageinspect, pgrowlocks
        "bt_multi_page_stats",
        "bt_page_items",
        "bt_page_stats",
        "get_raw_page",
        "pgrowlocks",
    }
)
_BEGINNINGS: Final = ("dblink", "pg_get_wal_")


def takes_sql(name: str, arguments: int | None = None) -> bool:
    """Whether a function of this bare name takes SQL or a relation's name as text and reads it.

    ``arguments`` is their number where it is known.
    """
    if name == "ts_rewrite" and arguments == 3:
        return False
    return name in _NAMED or name.startswith(_BEGINNINGS)
