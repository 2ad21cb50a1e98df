"""The error codes that the source can send are those that the documents list."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from app import messages
from app.protocols.http.replies import STATUS

ROOT = Path(__file__).resolve().parent.parent

MAKERS = {"Failure", "FormError", "AudioError", "error"}
"""The functions and classes that take a code as an argument."""

ON_STDOUT_ONLY = {"cancelled", "quarantined", "journal_damaged"}


def constants() -> set[str]:
    """The codes that app/messages.py defines."""
    return {
        value
        for name, value in vars(messages).items()
        if name.isupper() and isinstance(value, str) and name.lower() == value
    }


def written_out() -> set[str]:
    """The codes that are literals in a call that makes an error."""
    found = set()
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or name_of(node.func) not in MAKERS:
                continue
            for argument in node.args:
                value = argument.value if isinstance(argument, ast.Constant) else None
                if isinstance(value, str) and re.fullmatch("[a-z]+(_[a-z]+)*", value):
                    found.add(value)
    return found


def name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def section(document: str, title: str) -> str:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables' rows, without the headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if re.match(r"`|\d", row[0])]


def test_codes_and_documented_codes_are_the_same() -> None:
    source = constants() | written_out()
    assert {"busy", "model_not_found", "wrong_host"} <= source
    assert {row[0].strip("`") for row in rows(section("protocol.md", "Errors"))} == source


def test_statuses_and_documented_statuses_are_the_same() -> None:
    documented = {
        code: int(status)
        for status, text in rows(section("http.md", "Errors"))
        for code in re.findall("`([a-z_]+)`", text)
    }
    assert documented.keys() == constants() - ON_STDOUT_ONLY | written_out()
    for code in documented.keys() & STATUS.keys():
        assert documented[code] == STATUS[code], code
