"""app/storage/undo.py: what was overwritten comes back, wherever the writing of it broke off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.storage import undo

BODY = b"0123456789" * 10


def overwrite(noted: Path, descriptor: int, position: int, data: bytes) -> None:
    undo.note(noted, position, os.pread(descriptor, len(data), position))
    os.pwrite(descriptor, data, position)


def test_what_was_overwritten_comes_back_also_where_it_was_twice(tmp_path: Path) -> None:
    noted, body = tmp_path / "undo", tmp_path / "body"
    body.write_bytes(BODY)
    descriptor = os.open(body, os.O_RDWR)
    for position, data in ((20, b"first"), (22, b"second"), (90, b"x")):
        overwrite(noted, descriptor, position, data)
    assert body.read_bytes() != BODY
    undo.put_back(noted, descriptor)
    undo.put_back(noted, descriptor)
    os.close(descriptor)
    assert body.read_bytes() == BODY


@pytest.mark.parametrize("kept", [1, 11, 12, 14])
def test_a_record_that_broke_off_does_not_swallow_the_next(tmp_path: Path, kept: int) -> None:
    """A process dies while it notes; the next one notes and dies as well."""
    noted, body = tmp_path / "undo", tmp_path / "body"
    body.write_bytes(BODY)
    descriptor = os.open(body, os.O_RDWR)
    undo.note(noted, 20, BODY[20:25])
    os.truncate(noted, kept)
    undo.put_back(noted, descriptor)
    overwrite(noted, descriptor, 50, b"mended")
    undo.put_back(noted, descriptor)
    os.close(descriptor)
    assert body.read_bytes() == BODY


def test_nothing_noted_is_nothing_done(tmp_path: Path) -> None:
    undo.put_back(tmp_path / "undo", -1)
    assert not list(tmp_path.iterdir())
