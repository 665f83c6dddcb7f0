"""Function bodies that reach protected relations, or of which nobody knows."""

from __future__ import annotations

import pytest

from pgbalise.rewrite import Rules, reason_not_to_run


@pytest.mark.parametrize(
    ("body", "language", "reason"),
    [
        ("SELECT 1 FROM hospital.patient", "sql", "it reaches patient"),
        ('SELECT 1 FROM "Stay"', "SQL", "it reaches Stay"),
        ("BEGIN ATOMIC SELECT 1 FROM patient; END", "sql", "it reaches patient"),
        ("BEGIN RETURN QUERY SELECT * FROM Patient; END", "plpgsql", "it reaches patient"),
        ("DECLARE x patient.id%TYPE; BEGIN END", "plpgsql", "it reaches patient"),
        ("SELECT f('hospital.patient')", "sql", "it reaches patient"),
        ("SELECT f('SELECT * FROM PATIENT')", "sql", "it reaches patient"),
        (r"SELECT f(E'pat\x69ent')", "sql", "cannot be read"),
        (r"SELECT f(E'pat\ient')", "sql", "cannot be read"),
        (r"SELECT f(U&'pat\0069ent')", "sql", "cannot be read"),
        (r'SELECT 1 FROM U&"pat\0069ent"', "sql", "cannot be read"),
        ("SELECT 1 FROM U&\"pat!0069ent\" UESCAPE '!'", "sql", "cannot be read"),
        ('SELECT 1 FROM U&"patient"', "sql", "it reaches patient"),
        ("SELECT leak()", "sql", "it calls leak: it reads hospital.patient"),
        ("SELECT query_to_xml(x, true, true, '')", "sql", "takes SQL as text"),
        ("BEGIN EXECUTE x; END", "plpgsql", "put together at run time"),
        ("DECLARE c refcursor := 'c'; BEGIN FETCH c INTO r; END", "plpgsql", "from a cursor"),
        ("BEGIN LOOP FETCH NEXT FROM c INTO r; END LOOP; END", "plpgsql", "from a cursor"),
        ("BEGIN IF x THEN MOVE c; END IF; END", "plpgsql", "from a cursor"),
        ("BEGIN FOR r IN EXECUTE x LOOP END LOOP; END", "plpgsql", "put together at run time"),
        ("BEGIN DO $x$ BEGIN END $x$; END", "plpgsql", "code of its own"),
        ("BEGIN SET LOCAL ROLE dba; END", "plpgsql", "the session's role"),
        ("SELECT set_config('role', 'dba', true)", "sql", "the session's role"),
        ("SELECT 'unfinished", "sql", "cannot be read"),
        ("import plpy", "plpython3u", "language plpython3u cannot be read"),
        ("leak", "c", "language c cannot be read"),
    ],
)
def test_a_body_is_refused_for_what_it_reaches(
    recipient_rules: Rules, body: str, language: str, reason: str
) -> None:
    assert reason in (reason_not_to_run(body, language, recipient_rules) or "")


@pytest.mark.parametrize(
    ("body", "language"),
    [
        ("SELECT $1 + 1", "sql"),
        ("BEGIN RAISE NOTICE E'don\\'t\\n%', x; RETURN NEW; END", "plpgsql"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "sql"),
        ("BEGIN -- patient\n NULL; END", "plpgsql"),
        ("SELECT 'impatient'", "sql"),
        ("", "sql"),
    ],
)
def test_a_body_that_reaches_nothing_may_run(
    recipient_rules: Rules, body: str, language: str
) -> None:
    assert reason_not_to_run(body, language, recipient_rules) is None
