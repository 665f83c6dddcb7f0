"""The auditor's own database: who receives data, and the ledger of what left.

tables.py says what is in it, migrations/ makes it, ledger.py (pure) chains and checks entries,
store.py reads and writes, record.py copies what a hospital's database knows about its recipients,
pgaudit.py reads server logs, commands.py is its part of the command line.
"""
