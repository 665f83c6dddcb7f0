"""The documentation is true where a machine can tell: pages, links, commands, policies."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from pgbalise.marking.policy import load_policy
from pgbalise.proxy.background import check_watch
from pgbalise.proxy.config import parse_config

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted([PROJECT / "README.md", PROJECT / "CHANGELOG.md", *PROJECT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ENDS = {"|", "||", "&&", ";", ">", "<", ")", "&"}


def _generator() -> ModuleType:
    path = PROJECT / "docs" / "reference" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()
GENERATED: dict[str, str] = GENERATOR.pages()
COMMANDS = dict(GENERATOR.command_line())


def _blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page.relative_to(PROJECT).as_posix(), body)
        for page in PAGES
        for kind, body in _FENCE.findall(page.read_text("utf-8"))
        if kind == language
    ]


def _command_lines() -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for page, body in _blocks("sh"):
        for line in body.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
            # elsewhere it is the name of a user or of a role
            at = next((n for n, word in enumerate(words) if _runs(word, words[:n])), None)
            if at is None:
                continue
            words = words[at + 1 :]
            end = next((at for at, word in enumerate(words) if word in _ENDS), len(words))
            found.append((page, tuple(words[:end])))
    return found


def _runs(word: str, before: list[str]) -> bool:
    place = not before or before[-1] in _ENDS | {"--", "do", "time"} or "=" in before[-1]
    return word.rpartition("/")[2] == "pgbalise" and place


def _anchor(title: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", title.strip().lower())
    return kept.replace(" ", "-")


def test_there_are_pages_commands_and_policies() -> None:
    assert len(PAGES) > 20
    assert len(_command_lines()) > 20
    assert len(_blocks("toml")) > 5


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_page_is_up_to_date(name: str) -> None:
    page = PROJECT / "docs" / "reference" / name
    assert page.read_text("utf-8") == GENERATED[name], "run: python docs/reference/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_relative_links_resolve(page: Path) -> None:
    text = _FENCE.sub("", page.read_text("utf-8"))
    for link in _LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_anchor(title) for title in titles}, link


def test_index_names_every_page() -> None:
    index = PROJECT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text("utf-8"))}
    assert {page for page in PAGES if page.parent.parent == index.parent} <= linked


@pytest.mark.parametrize(("page", "words"), _command_lines())
def test_command_line_parses(page: str, words: tuple[str, ...]) -> None:
    path = next((words[:n] for n in (3, 2, 1) if words[:n] in COMMANDS), None)
    assert path is not None, f"no such command: pgbalise {' '.join(words)}"
    # parses options and arguments, and checks their types; runs nothing
    COMMANDS[path].make_context(" ".join(path), list(words[len(path) :]))


@pytest.mark.parametrize(("page", "body"), _blocks("toml"))
def test_toml_example_is_a_policy_or_a_configuration(page: str, body: str) -> None:
    if "relation" in tomllib.loads(body):
        assert load_policy(body).relations
    else:
        check_watch(parse_config(body))


def test_every_refusal_has_an_sqlstate_and_no_gap() -> None:
    rows = [row for some in GENERATOR.refusals().values() for row in some]
    assert len(rows) > 60
    for sqlstate, message, _ in rows:
        assert re.fullmatch("[0-9A-Z]{5}", sqlstate), message
        assert message != "…"
