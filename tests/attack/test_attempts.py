"""Whatever a recipient runs, it learns no more than its own marked views say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.attack.attempts import ATTEMPTS, tries

if TYPE_CHECKING:
    from tests.attack.attempts import Attempt
    from tests.attack.conftest import Pair


def findings(pair: Pair, attempt: Attempt) -> set[str]:
    """What the two oracles see in an attempt's replies; also check how its statements ended."""
    real, twin = (world.play(attempt.script) for world in pair.worlds())
    found: set[str] = set()
    for role, forbidden in pair.real.forbidden.items():
        found |= real[role].among(forbidden)
    if attempt.twin and not found:
        for role in ("mallory", "ghost", "outsider"):
            told = zip(real[role].settled(), twin[role].settled(), strict=False)
            found |= {f"{here} | {there}" for here, there in told if here != there}
            if len(real[role].texts) != len(twin[role].texts):
                found.add(f"{len(real[role].texts)} replies | {len(twin[role].texts)}")
    attackers = pair.real.forbidden
    ended = {state for role, heard in real.items() if role in attackers for state in heard.states}
    assert found or ended == attempt.states, [
        text for heard in real.values() for text in heard.texts
    ][-20:]
    return found


@pytest.mark.parametrize("name", list(ATTEMPTS))
def test_attempt_tells_nothing(request: pytest.FixtureRequest, pair: Pair, name: str) -> None:
    attempt = ATTEMPTS[name]
    if attempt.changes:
        pair = request.getfixturevalue("fresh_pair")
    try:
        assert not findings(pair, attempt)
    finally:
        if not attempt.changes:
            for world in pair.worlds():
                world.clean()


HOLES = {
    "a grant on the stored table": (
        "GRANT USAGE ON SCHEMA clinic TO mallory; GRANT SELECT ON clinic.patient TO mallory",
        tries("SELECT solde FROM clinic.patient"),
    ),
    "a grant on one stored column": (
        (
            "GRANT USAGE ON SCHEMA clinic TO mallory;"
            "GRANT SELECT (naissance) ON clinic.patient TO mallory"
        ),
        ATTEMPTS["statistics and plans: published statistics"],
    ),
    "a view that passes stored values": (
        "CREATE OR REPLACE VIEW marked.patient AS SELECT * FROM clinic.patient",
        ATTEMPTS["functions of the server: a binary cursor"],
    ),
    "a view without its check, lent to all": (
        (
            "CREATE VIEW marked.open AS SELECT * FROM clinic.patient;"
            "GRANT USAGE ON SCHEMA marked TO PUBLIC; GRANT SELECT ON marked.open TO PUBLIC"
        ),
        tries(("ghost", "SELECT nom FROM marked.open")),
    ),
    "decoys without row security": (
        "ALTER TABLE balise_decoy.patient DISABLE ROW LEVEL SECURITY",
        tries("SELECT nom FROM marked.patient WHERE id > 2000"),
    ),
    "decoys filtered by a condition only": (
        (
            "ALTER TABLE balise_decoy.patient DISABLE ROW LEVEL SECURITY;"
            "CREATE OR REPLACE VIEW marked.patient AS"
            " SELECT id, nom, ville, solde, naissance, vu_le"
            " FROM balise_decoy.patient WHERE balise_recipient = SESSION_USER"
        ),
        ATTEMPTS["leaky functions and operators: a cheap function beside a selective condition"],
    ),
    "a function that confirms guesses": (
        (
            "CREATE FUNCTION public.confirms(integer, bigint) RETURNS boolean LANGUAGE sql"
            " SECURITY DEFINER"
            " AS 'SELECT EXISTS (SELECT FROM clinic.patient WHERE id = $1 AND solde = $2)'"
        ),
        tries("SELECT public.confirms(@id@, @raw@)"),
    ),
    "a condition on the stored value": (
        (
            "CREATE VIEW marked.above AS SELECT id FROM clinic.patient WHERE solde % 2 = 0;"
            "GRANT SELECT ON marked.above TO mallory"
        ),
        tries("SELECT * FROM marked.above"),
    ),
    "words, in base64": (
        "GRANT USAGE ON SCHEMA balise TO mallory; GRANT SELECT ON balise.codeword TO mallory",
        tries(
            "SELECT translate(encode(substr(word, 2), 'base64'), E'\\n', '') FROM balise.codeword"
        ),
    ),
    "words, a bit a row": (
        "GRANT USAGE ON SCHEMA balise TO mallory; GRANT SELECT ON balise.codeword TO mallory",
        tries(
            "SELECT get_bit(word, n) FROM balise.codeword, generate_series(0, 255) AS n"
            " WHERE role_name = 'carole' ORDER BY n"
        ),
    ),
    "seeds, in hexadecimal": (
        "GRANT USAGE ON SCHEMA balise TO mallory;GRANT SELECT ON balise.relation_secret TO mallory",
        tries("SELECT to_hex(seeds[2]) FROM balise.relation_secret"),
    ),
    "another recipient's marks": (
        (
            "CREATE VIEW marked.other AS SELECT * FROM balise_decoy.patient;"
            "GRANT SELECT ON marked.other TO mallory"
        ),
        tries("EXPLAIN (ANALYZE) SELECT * FROM marked.other", "SELECT vu_le FROM marked.other"),
    ),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_is_seen(fresh_pair: Pair, name: str) -> None:
    hole, attempt = HOLES[name]
    for world in fresh_pair.worlds():
        with world.dba() as dba:
            dba.execute(hole)
    assert findings(fresh_pair, attempt)


def test_there_are_enough_attempts() -> None:
    assert len(ATTEMPTS) >= 90
    assert len({attempt.script for attempt in ATTEMPTS.values()}) == len(ATTEMPTS)


def test_who_runs_a_thiefs_code_gives_it_what_it_may_read(fresh_pair: Pair) -> None:
    """A limit, not an attempt: no identity survives running somebody else's functions."""
    script = (
        "CREATE TABLE m.loot (row text)",
        "GRANT INSERT ON m.loot TO PUBLIC",
        (
            "CREATE FUNCTION m.take() RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO m.loot SELECT p::text FROM marked.patient AS p;"
            " RETURN true; END $$"
        ),
        "CREATE VIEW m.report AS SELECT 'all is well' AS news WHERE m.take()",
        "GRANT SELECT ON m.report TO PUBLIC",
        ("victim", "SELECT * FROM m.report"),
        "TABLE m.loot",
    )
    assert findings(fresh_pair, tries(*script, twin=False))
