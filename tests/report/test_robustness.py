"""A study as HTML and on a terminal: well-formed, complete, and what it advises."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from pgbalise.report.robustness import advice, html, summary
from pgbalise.report.robustness_words import ATTACKS as NAMES
from pgbalise.report.robustness_words import STRENGTHS, WORDS
from pgbalise.tracing.attacks.catalogue import ATTACKS, attack_named
from pgbalise.tracing.trials import Estimate, Setting, Study, Trial, Variant


def estimate(name, detected, sizes, *, colluders=1, decades=None, traced=True, wronged=0, key=True):
    """Twenty trials, of which so many name the thieves."""
    thieves = tuple(f"thief {n}" for n in range(colluders))
    attack = attack_named(name)
    trials = tuple(
        Trial(
            thieves,
            (thieves if n < detected else ()) + (("innocent",) if n < wronged else ()),
            traced,
            100,
            12.0,
            decades or {},
        )
        for n in range(20)
    )
    setting = Setting(attack, attack.usual, colluders, key and attack.keeps_key)
    return Estimate(setting, 1000, trials, sizes, 20_000 if sizes else 0)


def study(**changes) -> Study:
    plain = estimate(
        "none", 20, tuple(range(100, 300, 10)), decades={"a": 30.0, "b": 9.0, "<c>": 0.1}
    )
    rounded = estimate(
        "round", 9, tuple(range(900, 2900, 100)), decades={"a": 0.2, "b": 6.0, "<c>": 0}
    )
    values = {
        "relation": "h.<p>",
        "recipients": 1000,
        "alpha": 1e-6,
        "rows": 1000,
        "trials": 20,
        "seed": 1,
        "stored": 50_000,
        "scored": 12_345,
        "wronged": 0,
        "estimates": (
            plain,
            rounded,
            estimate("flip", 20, tuple(range(300, 500, 10))),
            estimate("minority", 3, (None,) * 20, colluders=3),
            estimate("keyless", 0, None, traced=False),
        ),
        "variants": (
            Variant("density", 2, tuple(
                estimate(name, 20, tuple(range(start, start + 20 * step, step)))
                for name, start, step in (("none", 50, 5), ("round", 450, 50))
            )),
            Variant("quantum", 2, (plain, rounded)),
        ),
    }  # fmt: skip
    return Study(**{**values, **changes})


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_report_is_well_formed_and_asks_nothing_of_the_network(language):
    text = html(study(), language)
    root = ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert root.get("lang") == language
    assert "http" not in re.sub('<meta http-equiv="Content-Security-Policy"', "", text)
    assert "h.&lt;p&gt;" in text
    assert "&lt;c&gt;" in text
    assert not re.search(r"[{}]", text.partition("</style>")[2])
    said = "".join(root.itertext())
    for one in study().estimates:
        assert NAMES[language][one.setting.attack.name] in said


def test_bars_are_as_long_as_detection_is_frequent():
    root = ET.fromstring(html(study()).removeprefix("<!DOCTYPE html>\n"))
    widths = [float(bar.get("width")) for bar in root.iter("rect") if bar.get("class") == "bar"]
    assert widths == pytest.approx([340, 340 * 9 / 20, 340, 340 * 3 / 20])


def test_the_languages_say_the_same():
    assert WORDS["en"].keys() == WORDS["fr"].keys()
    for name, text in WORDS["en"].items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", WORDS["fr"][name])), name
    for language in ("en", "fr"):
        assert set(NAMES[language]) == {attack.name for attack in ATTACKS}
        graded = {attack.name for attack in ATTACKS if attack.parameter}
        assert set(STRENGTHS[language]) == graded


def test_advice_says_what_carries_what_hurts_and_what_helps():
    said = advice(study())
    assert (
        said[0]
        == "A copy that nobody altered names its recipient from 280 rows on, in 95% of cases."
    )
    assert said[1] == "Where the evidence comes from: a 77%, b 23%, <c> 0.3%."
    assert said[2].startswith("<c> adds next to nothing.")
    assert "rounded (to 5 quanta). Then 2,700 rows are needed instead of 280." in said[3]
    assert "mostly in b" in said[4]
    assert said[5].startswith("Twice the density: 140 rows")
    assert said[5].endswith("That halves the rows needed.")
    assert said[6].endswith("That changes little.")
    assert "3 thieves" in said[7]
    assert "15% of the trials" in said[7]
    assert "key dropped (20/20)" in said[8]
    assert said[9] == "None of 12,345 innocents that were scored was accused."


def test_advice_owns_up_to_what_does_not_work():
    weak = study(
        estimates=(estimate("none", 2, (100,) + (None,) * 19, decades={"a": 1.0}),),
        variants=(),
        wronged=2,
    )
    said = advice(weak)
    assert "raise the density" in said[0]
    assert said[-1] == "2 of 12,345 innocents that were scored were accused."
    assert "10% of the trials" in html(weak)


def test_the_terminal_shows_every_setting():
    out = Console(file=io.StringIO(), width=120)
    out.print(summary(study()))
    text = out.file.getvalue()
    lines = [line for line in text.splitlines() if "rounded" in line and "–" in line]
    assert re.search(r"to 5 quanta +1 +45% +23–68% +45% +2,700 +0", lines[0])
    assert re.search(r"key dropped +1 +not traced", text)
    assert "> 20,000" in text
