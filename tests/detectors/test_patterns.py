from __future__ import annotations

import dataclasses
import random

from pgbalise.decoys.identity import Role
from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.patterns import NUMBERS, rule_name, select
from tests.detectors.leaking import IDENTITY, NOW, decoy

ALL = frozenset(TraitKind)


def test_a_rules_name_stays_and_tells_nothing_of_the_recipient() -> None:
    one = decoy(number=1)
    assert rule_name(one) == rule_name(decoy(number=1, retired=True))
    names = [rule_name(decoy(number=n, recipient=r)) for n in range(9) for r in ("a", "b")]
    assert len(set(names)) == 18
    assert all(len(name) == 17 and name[0] == "d" for name in names)
    int("".join(name[1:] for name in names), 16)
    # who guesses the recipient cannot check it without the moment of issue
    assert rule_name(dataclasses.replace(one, issued_at=NOW)) != rule_name(one)


def test_the_order_does_not_tell_which_decoys_belong_together() -> None:
    book = [decoy(number=n, recipient=r) for r in ("a", "b") for n in range(20)]
    shuffled = random.Random(1).sample(book, len(book))
    order = [target.rule for target in select(book, ALL).targets]
    assert order == [target.rule for target in select(shuffled, ALL).targets] == sorted(order)
    owners = [target.decoy.recipient for target in select(book, ALL).targets]
    assert owners != sorted(owners)


def test_retired_decoys_are_left_out_unless_asked_for() -> None:
    book = [decoy(number=1), decoy(number=2, retired=True)]
    some = select(book, ALL)
    assert [target.decoy.number for target in some.targets] == [1]
    assert some.left_out == {"decoys that were retired": 1}
    assert len(select(book, ALL, retired=True).targets) == 2


def test_what_a_format_cannot_hold_is_left_out_and_counted() -> None:
    short = decoy(IDENTITY | {Role.RECORD_NUMBER: "12345"})
    some = select([short], NUMBERS)
    [target] = some.targets
    assert target.of(TraitKind.RECORD) == ()
    assert target.person is None
    assert sum("characters" in reason for reason in some.left_out) == 1
    assert sum("names" in reason for reason in some.left_out) == 1
    kept = select([short], ALL, least=1)
    assert kept.targets[0].of(TraitKind.RECORD) == ("12345",)
    assert kept.targets[0].person is not None
    assert not kept.left_out


def test_only_the_kinds_asked_for_are_looked_for() -> None:
    some = select([decoy()], ALL, {TraitKind.MAIL, TraitKind.PERSON})
    [target] = some.targets
    assert {spelling.kind for spelling in target.texts} == {TraitKind.MAIL}
    assert target.person is not None
    assert some.kinds == {TraitKind.MAIL, TraitKind.PERSON}
    assert select([decoy({Role.MAIL: "a@example.org"})], ALL, {TraitKind.NIR}).targets == ()


def test_names_without_a_birth_date_are_nobodys() -> None:
    names = {Role.FAMILY_NAME: "Durand", Role.GIVEN_NAME: "Jean"}
    some = select([decoy(names)], ALL)
    assert some.targets == ()
    assert some.left_out == {"decoys of which nothing remains": 1}


def test_line_feeds_never_reach_a_file_of_rules() -> None:
    some = select([decoy(IDENTITY | {Role.RECORD_NUMBER: "1234\n567890"})], ALL)
    assert not any("\n" in text for text in some.targets[0].of(TraitKind.RECORD))
    assert some.left_out["texts with control characters"] == 1
