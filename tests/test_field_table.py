"""The table of fields and the readers of fields agree."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from http_peer import MODEL

from app.messages import Request
from app.protocols.http import lists
from app.protocols.http.dialect import Dialect, read
from app.protocols.http.form import FormError
from app.protocols.http.routes import ROUTES, Upload

DIALECTS = {path: found.dialect for path, found in ROUTES.items() if isinstance(found, Upload)}
REQUEST = Request(id="made", content_length=None)


class Recorder(dict[str, list[str]]):
    """Fields that record the names that were asked for."""

    asked: set[str]

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__({name: [value] for name, value in fields.items()})
        self.asked = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


@pytest.fixture
def lists_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the names of lists, which the reader of lists only compares with those it finds."""
    original = lists.list_of

    def list_of(fields: Any, name: str) -> list[str]:
        fields.asked.add(name)
        return original(fields, name)

    for module in list(sys.modules.values()):
        if getattr(module, "list_of", None) is original:
            monkeypatch.setattr(module, "list_of", list_of)


def asked(dialect: Dialect, fields: dict[str, str]) -> set[str]:
    recorder = Recorder(fields)
    with contextlib.suppress(FormError):
        read(recorder, dialect, REQUEST, MODEL)
    return recorder.asked


def settings(dialect: Dialect) -> Iterator[dict[str, str]]:
    """Each value of each field that has few."""
    yield {}
    for field in dialect.fields:
        for value in field.values:
            yield {field.name: value}


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.usefixtures("lists_recorded")
def test_table_has_the_fields_that_the_reader_asks_for(path: str) -> None:
    dialect = DIALECTS[path]
    found = set().union(*(asked(dialect, fields) for fields in settings(dialect)))
    assert found == {field.name for field in dialect.fields}
    assert dialect.prompt_field in found
    assert len(dialect.fields) == len(found)


def allowed(dialect: Dialect, fields: dict[str, str]) -> bool:
    try:
        read_with(dialect, fields)
    except FormError as error:
        # Also where the message names another field first.
        return next(iter(fields)) not in error.failure.message
    return True


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.usefixtures("lists_recorded")
def test_ranges_and_values_of_the_table_are_those_of_the_reader(path: str) -> None:
    dialect = DIALECTS[path]
    for field in dialect.fields:
        if field.values:
            assert not allowed(dialect, {field.name: "no such value"}), field
            assert sum(allowed(dialect, {field.name: value}) for value in field.values) >= 1
        if field.kind in ("number", "whole"):
            assert field.least is not None
            assert field.most is not None
            for inside in (field.least, field.most):
                assert allowed(dialect, {field.name: f"{inside:g}"}), field
            for outside in (field.least - 1, field.most + 1, "x"):
                text = outside if isinstance(outside, str) else f"{outside:g}"
                assert not allowed(dialect, {field.name: text}), field
        elif field.kind == "flag":
            assert not allowed(dialect, {field.name: "perhaps"}), field
            assert allowed(dialect, {field.name: str(field.default).lower()}), field
        elif field.most is not None:
            size = int(field.most) + 1
            long = ",".join(["de"] * size) if field.kind == "list" else "x" * size
            assert not allowed(dialect, {field.name: long}), field
            if field.kind == "text":
                assert allowed(dialect, {field.name: "x" * (size - 1)}), field
        if field.default is not None:
            default = str(field.default).lower()
            assert read_with(dialect, {field.name: default}) == read_with(dialect, {}), field


def read_with(dialect: Dialect, fields: dict[str, str]) -> object:
    return read(Recorder(fields), dialect, REQUEST, MODEL)
