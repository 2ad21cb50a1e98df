"""The parameters of header fields."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.protocols.http.parameters import parameters

CASES: dict[str, tuple[str, dict[str, str]]] = {
    "": ("", {}),
    "Text/Plain": ("text/plain", {}),
    "a/b;": ("a/b", {}),
    "a/b; ;; x=y;": ("a/b", {"x": "y"}),
    "a/b ;X=Y": ("a/b", {"x": "Y"}),
    'a/b; x="y; z=1"; w=2': ("a/b", {"x": "y; z=1", "w": "2"}),
    r'a/b; x="a\"b\\c\d"; w=2': ("a/b", {"x": r'a"b\cd', "w": "2"}),
    'a/b; x=""; w=2': ("a/b", {"x": "", "w": "2"}),
    'a/b; x="\t"': ("a/b", {"x": "\t"}),
    "a/b; x=y z; w=2": ("a/b", {"x": "y z", "w": "2"}),
    "a/b; x=1; x=2": ("a/b", {"x": "1"}),
    "a/b; x*=utf-8''y; x=z": ("a/b", {"x*": "utf-8''y", "x": "z"}),
    "a/b; x = y; w=2": ("a/b", {"w": "2"}),
    "a/b; x; w=2": ("a/b", {"w": "2"}),
    "a/b; =y; w=2": ("a/b", {"w": "2"}),
    # Browsers leave the backslash of a file's name as it is.
    'form-data; name="f"; filename="a\\"': ("form-data", {"name": "f", "filename": '"a\\"'}),
    'a/b; x="y': ("a/b", {"x": '"y'}),
    'a/b; x="y"z; w=2': ("a/b", {"x": '"y"z', "w": "2"}),
}


@pytest.mark.parametrize("value", CASES)
def test_parameters_are_read(value: str) -> None:
    assert parameters(value) == CASES[value]


TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=20)


@settings(max_examples=60)
@given(TEXT)
def test_quoted_value_is_read_back(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    assert parameters(f'a/b; x="{escaped}"; w=2') == ("a/b", {"x": text, "w": "2"})


@settings(max_examples=60)
@given(TEXT)
def test_random_value_is_read_without_an_error(text: str) -> None:
    kind, found = parameters(text)
    assert kind == kind.lower()
    assert all(name == name.lower() for name in found)
