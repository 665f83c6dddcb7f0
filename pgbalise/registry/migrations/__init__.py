"""Alembic's environment and the revisions of the registry."""

from __future__ import annotations


def refuse_loss(*tables: str) -> None:
    """Fail the migration unless these tables of the registry are empty; also offline."""
    from alembic import op

    for table in tables:
        # the lock keeps a writer from adding a row between the look and the drop
        op.execute(
            f"""
DO $$
BEGIN
    LOCK TABLE balise_registry.{table} IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM balise_registry.{table}) THEN
        RAISE EXCEPTION 'table balise_registry.{table} holds rows that a downgrade would lose'
            USING HINT = 'dump it and empty it first';
    END IF;
END
$$"""
        )
