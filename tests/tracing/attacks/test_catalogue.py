from __future__ import annotations

import numpy as np
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.frames import mark
from pgbalise.marking.keys import MasterKey
from pgbalise.tracing.attacks.catalogue import ATTACKS, Context, attack_named

KEY = MasterKey(b"catalog!" * 4)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_follows_from_its_seed_and_leaves_the_copies_alone(attack, policy, table):
    plain = table.drop_columns(["stored_at"])
    copies = [mark(plain, policy, name, KEY) for name in "ab"[: attack.colluders]]
    context = Context(policy.relations[0], plain)
    before = [copy.to_pylist() for copy in copies]
    for strength in attack.strengths:
        once, again = (
            attack.apply(copies, context, np.random.default_rng(3), strength) for _ in range(2)
        )
        assert once.equals(again)
        assert {str(field.type) for field in once.schema} == {"string"}
        assert attack.keeps_key == ("id" in once.column_names and attack.name != "rekey") or (
            attack.name == "rename"
        )
    assert [copy.to_pylist() for copy in copies] == before
    assert attack.usual in attack.strengths


def test_names_are_looked_up():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert attack_named("flip").name == "flip"
    with pytest.raises(InvalidInput, match="correlation"):
        attack_named("magic")


def test_coalitions_of_one_are_refused(policy, table):
    context = Context(policy.relations[0], table)
    with pytest.raises(InvalidInput):
        attack_named("majority").apply([table], context, np.random.default_rng(0))
