from collections import Counter

import pytest

from pgbalise.decoys.names import (
    Case,
    FullLook,
    Look,
    draw_name,
    learn_full_look,
    learn_look,
    learn_street,
    least_choice,
    name_lists,
)
from pgbalise.decoys.stream import Stream


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["DUPONT", "LEFÈVRE", "PETIT-JEAN"], "BÉNARD-LE GOFF"),
        (["DUPONT", "LEFEVRE", "PETIT-JEAN"], "BENARD-LE GOFF"),
        (["DUPONT", "LEFEVRE", "PETIT JEAN"], "BENARD LE GOFF"),
        (["Dupont", "Lefèvre", "Petit-Jean"], "Bénard-Le Goff"),
        (["dupont", "lefevre", "petit-jean"], "benard-le goff"),
    ],
)
def test_a_name_is_written_as_the_column_writes(texts: list[str], expected: str) -> None:
    assert learn_look(texts).write("Bénard-Le Goff") == expected


def test_ligatures_are_accents() -> None:
    assert Look(Case.UPPER, accents=False).write("Lecœur") == "LECOEUR"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["DUPONT Marie", "LE GOFF Jean"], "BÉNARD Zoé"),
        (["Marie DUPONT", "Jean LE GOFF"], "Zoé BÉNARD"),
        (["DUPONT, Marie", "PETIT, Éric"], "BÉNARD, Zoé"),
        (["MARIE DUPONTEL", "SOPHIE GARANDOU", "ANDRÉ VILLETOUX"], "ZOÉ BÉNARD"),
        (["DUPONTEL MARIE", "GARANDOU SOPHIE"], "BENARD ZOE"),
        (["Mme DUPONT Marie", "M. LE GOFF Jean", "M. PETIT Éric"], "Mme BÉNARD Zoé"),
    ],
)
def test_full_names_keep_the_columns_order(texts: list[str], expected: str) -> None:
    look = learn_full_look(texts)
    family = Look(look.family.case, accents="É" in expected)
    given = Look(look.given.case, accents="É" in expected or "é" in expected)
    shown = FullLook(look.family_first, look.separator, family, given, look.titles)
    assert shown.write("Bénard", "Zoé", "F") == expected


@pytest.mark.parametrize(
    ("texts", "pattern"),
    [
        (["12, rue Victor Hugo", "3, avenue Foch"], r"[0-9]{1,2}, [a-z]+ [A-Z].*"),
        (["12 RUE VICTOR HUGO", "3 AVENUE FOCH"], r"[0-9]{1,2} [A-Z]+ [A-Z' -]+"),
        (["rue Haute", "place du Marché"], r"[a-z]+ [A-Z].*"),
    ],
)
def test_streets_look_like_the_columns(texts: list[str], pattern: str) -> None:
    import re

    look = learn_street(texts)
    for number in range(50):
        assert re.fullmatch(pattern, look.draw(Stream(bytes([number]), "street")))


def test_every_name_is_about_as_likely_as_the_others() -> None:
    families = name_lists().family
    drawn = Counter(
        draw_name(Stream(number.to_bytes(4, "big"), "x"), families, 0.0) for number in range(20_000)
    )
    assert set(drawn) == set(families)
    assert max(drawn.values()) < 2 * 20_000 / len(families)
    assert least_choice(families) <= len(families)


def test_compound_names_come_at_the_columns_rate() -> None:
    look = learn_look(["Petit-Jean"] * 10 + ["Durand"] * 90)
    drawn = [
        draw_name(Stream(bytes([n % 256, n // 256]), "x"), name_lists().male, look.compound)
        for n in range(2000)
    ]
    assert 0.06 < sum("-" in name for name in drawn) / 2000 < 0.14


def test_names_that_differ_in_accents_only_count_once() -> None:
    assert least_choice(("Mace", "Macé", "Petit", "Roux")) == 2
