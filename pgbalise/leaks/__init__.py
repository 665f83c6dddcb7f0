"""Reading leaked files of any format as streams of text columns.

::

    open_leak -> archives    what is packed is unpacked, into a folder that goes with it (unpacking)
              -> kind        PURE  what is it: told by its first bytes, never by its name
              -> delimited   CSV, TSV and their kin     (encoding, dialect, header, fields)
              -> columnar    Parquet, Arrow
              -> documents   JSON, JSON lines          (cursor)
              -> spreadsheet XLSX, XLS, ODS, in a process of its own (workbook)
              -> sqlite      every table
              -> statements  SQL text: COPY blocks, INSERTs   (sql)
              -> pgdump      pg_dump's custom, directory and tar formats

What cannot be read again from where it lies is converted once, to Arrow (spool). Needs the extra
``leaks``; each library is imported only when a file needs it.
"""

from pgbalise.leaks.leak import Leak, LeakTable, open_leak

__all__ = ["Leak", "LeakTable", "open_leak"]
