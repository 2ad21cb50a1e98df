"""The text that developers and users read: subject first, and comments without history.

CONTRIBUTING.md describes the style. This test checks the part that a program can check: a sentence
that begins with a relative clause ("What is late is ...") hides its subject.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CLAUSE = re.compile(r"(?:What|Whatever|Who|Whoever|Where|Wherever|How)\b")
END = re.compile(r"(?<=[.!?:;])[\"'`)*_]*\s+(?=[\"'`(*_\[]*[A-Z])")
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
HASH = re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b")
TOOL = re.compile(r"#\s*(?:noqa|type:|ruff:|shellcheck|pragma|!|mypy:)")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a docstring or a comment: paragraphs and list items apart."""
    for paragraph in re.split(r"\n\s*\n|\n\s*(?=[-*|] |\d+\. )", text):
        whole = " ".join(paragraph.split())
        for sentence in END.split(whole):
            if sentence := sentence.strip(" \"'`(*_[-|"):
                yield sentence


def comments(source: str) -> list[tuple[int, str]]:
    """Comment blocks with the line that each begins on; neighbouring lines are one block."""
    blocks: list[tuple[int, str]] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or TOOL.match(token.string):
            continue
        line, text = token.start[0], token.string.lstrip("#").strip()
        if line == last + 1:
            blocks[-1] = (blocks[-1][0], f"{blocks[-1][1]} {text}")
        else:
            blocks.append((line, text))
        last = line
    return blocks


def docstrings(source: str) -> Iterator[str]:
    """Bare strings: docstrings of modules, classes and functions, and those behind a constant."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value.value


def of_python(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    texts = [*docstrings(source), *(text for _, text in comments(source))]
    return [sentence for text in texts for sentence in sentences(text)]


def of_markdown(path: Path) -> list[str]:
    text = re.sub(r"```.*?```|^ {4,}.*?$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    found: list[str] = []
    for line in re.split(r"\n\s*\n", text):
        for block in re.split(r"\n(?=#|\||- |\* |\d+\. )", line):
            cells = block.split("|") if block.lstrip().startswith("|") else [block.lstrip("# ")]
            for cell in cells:
                found += sentences(cell)
    return [one for one in found if re.search(r"[A-Za-z]{2}", one)]


def python_files(*folders: str) -> list[Path]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    paths = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in paths if is_python(path)]


def is_python(path: Path) -> bool:
    if path.suffix:
        return path.suffix == ".py"
    return path.read_bytes()[:64].startswith(b"#!/usr/bin/env python3")


def clauses(found: list[str]) -> list[str]:
    return [one for one in found if CLAUSE.match(one) and not one.endswith("?")]


TREES = {
    "app": (lambda: [one for path in python_files("app") for one in of_python(path)], 0.01),
    "tests": (lambda: [one for path in python_files("tests") for one in of_python(path)], 0.02),
    "scripts": (lambda: [one for path in python_files("scripts") for one in of_python(path)], 0.02),
    "README and docs": (
        lambda: [
            one
            for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
            for one in of_markdown(path)
        ],
        0.02,
    ),
}


@pytest.mark.parametrize("tree", TREES)
def test_sentences_begin_with_their_subject(tree: str) -> None:
    gather, most = TREES[tree]
    found = gather()
    wrong = clauses(found)
    assert len(found) > 100
    assert len(wrong) / len(found) <= most, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", python_files("app", "scripts", "tests"), ids=str)
def test_comments_hold_no_history(path: Path) -> None:
    dated = [
        f"{path.name}:{line}: {text}"
        for line, text in comments(path.read_text(encoding="utf-8"))
        if DATE.search(text) or HASH.search(text)
    ]
    assert not dated


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("What is late is told so.", 1),
        ("It ends. Who comes later waits.", 1),
        ("What is a window? A window is 30 s.", 0),
        ("Whatever", 1),
        ("Whole windows. Whose turn it is.", 0),
        ("A list:\n\n- How it works\n- the rest", 1),
    ],
)
def test_clause_at_the_beginning_is_found(text: str, wrong: int) -> None:
    assert len(clauses(list(sentences(text)))) == wrong


def test_table_cell_and_heading_count(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# How fast\n\n| a | Where it is |\n|---|---|\n| x1 | What waits |\n\nDone here.\n"
    )
    assert len(clauses(of_markdown(page))) == 3


def test_date_in_a_comment_is_found() -> None:
    assert DATE.search("measured on 2026-01-02")
    assert HASH.search("since a891c9b")
    assert not HASH.search("the facade of 1234567")
