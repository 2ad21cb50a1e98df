"""README and docs/: links and names of files have a target. test_config.py and test_codes.py check
the options and error codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
OURS = re.compile(r"`((?:app|scripts|tests|deploy|models|docs)/[\w./-]*\w/?)`")
"""A path of the project as the documents write it."""

MODULE = re.compile(r"`([\w/]+\.py)`")
"""A module as the documents write it: its path from the root, or from one of these folders."""

TEST = re.compile(r"`(test_\w+)`")
"""A test as the documents name it."""

FOLDERS = (ROOT, ROOT / "app", ROOT / "scripts", ROOT / "scripts" / "dev", ROOT / "tests")


def text_of(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text_of(page)))
    return {heading.strip().replace(" ", "-") for heading in plain}


def links_of(page: Path) -> set[str]:
    found = {first or second for first, second in LINK.findall(text_of(page))}
    return {link for link in found if not re.match(r"[a-z]+:", link)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_a_target(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    for name in OURS.findall(text_of(page)):
        assert (ROOT / name).exists(), name
    for name in MODULE.findall(text_of(page)):
        assert any((room / name).is_file() for room in FOLDERS), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    defined = {
        name
        for path in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(TEST.findall(text_of(page))) <= defined


RULE = re.compile(r"^\| (?:\d|2046|7578)[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)
NAMED = re.compile(r"`tests/(test_\w+\.py)::(test_\w+)`")


def test_each_rule_of_http_has_a_test() -> None:
    rules = RULE.findall((ROOT / "docs" / "http-rules.md").read_text(encoding="utf-8"))
    assert len(rules) > 80
    for rule, answer, test in rules:
        named = NAMED.findall(test)
        assert named, rule
        assert answer.strip(), rule
        for module, function in named:
            source = (ROOT / "tests" / module).read_text(encoding="utf-8")
            assert f"\ndef {function}(" in source, (module, function)


def test_search_finds_links_and_names() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]
    assert sum(len(links_of(page)) for page in pages) > 10
    assert sum(len(OURS.findall(text_of(page))) for page in pages) > 10
    assert sum(len(MODULE.findall(text_of(page))) for page in pages) > 10
    assert len(TEST.findall(text_of(ROOT / "docs" / "live.md"))) > 10
    assert "errors" in anchors_of(ROOT / "docs" / "protocol.md")
