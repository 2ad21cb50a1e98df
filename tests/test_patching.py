"""scripts/engine_build/patching.py: patches apply exactly or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from engine_build import patching, workshop
from engine_build.patching import PatchError, apply_patch, patches
from engine_build.workshop import VERSION, BuildError, Workshop

FIRST = "one\ntwo\nthree\nfour\n"
SECOND = "alpha\nbeta"
PATCH = """Why.

--- a/first.cpp
+++ b/first.cpp
@@ -1,2 +1,3 @@ function
 one
-two
+2
+2.5
@@ -4 +5 @@
-four
+4
--- a/folder/second.cpp
+++ b/folder/second.cpp
@@ -1,2 +1,2 @@
-alpha
+Alpha
 beta
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "folder").mkdir(parents=True)
    (folder / "first.cpp").write_text(FIRST)
    (folder / "folder" / "second.cpp").write_text(SECOND)
    return folder


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "1-change.patch"
    path.write_text(text)
    return path


def test_patch_changes_all_its_files(tmp_path: Path, source: Path) -> None:
    apply_patch(written(tmp_path, PATCH), source)
    assert (source / "first.cpp").read_text() == "one\n2\n2.5\nthree\n4\n"
    assert (source / "folder" / "second.cpp").read_text() == "Alpha\nbeta"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (" beta", " gamma", r"1-change\.patch does not fit folder/second\.cpp at line 1"),
        ("@@ -4 +5 @@", "@@ -3 +4 @@", r"does not fit first\.cpp at line 3"),
        ("-four", "-four ", r"does not fit first\.cpp at line 4"),
        ("folder/second", "folder/third", r"changes folder/third\.cpp, which is not in"),
        ("@@ -1,2 +1,3 @@", "@@ -1,3 +1,4 @@", "not a line of a unified diff"),
        ("+++ b/first.cpp\n", "", "changes before a file's name"),
    ],
)
def test_patch_that_does_not_fit_changes_nothing(
    tmp_path: Path, source: Path, before: str, after: str, message: str
) -> None:
    assert before in PATCH
    with pytest.raises(PatchError, match=message):
        apply_patch(written(tmp_path, PATCH.replace(before, after)), source)
    assert (source / "first.cpp").read_text() == FIRST
    assert (source / "folder" / "second.cpp").read_text() == SECOND


def test_patch_without_changes_is_rejected(tmp_path: Path, source: Path) -> None:
    with pytest.raises(PatchError, match="contains no changes"):
        apply_patch(written(tmp_path, "Why.\n"), source)


def test_patches_state_their_reason_and_change_the_engine_alone() -> None:
    assert len(patches()) == 4
    for patch in patches():
        text = patch.read_text()
        reason, _, _ = text.partition("\n--- a/")
        assert len(reason.split()) > 20, patch.name
        assert {name.split("/")[0] for name, _ in patching._files(patch)} == {"whisper.cpp"}
        assert not [line for line in text.splitlines() if line.startswith("+") and "\t" in line]


def unpacked(tmp_path: Path, patched: bool = True) -> Workshop:
    """A workshop whose source has been fetched."""
    shop = Workshop(tmp_path, Path(sys.executable), patched)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "complete").touch()
    shop.source.mkdir()
    (shop.source / "first.cpp").write_text(FIRST)
    (shop.source / "folder").mkdir()
    (shop.source / "folder" / "second.cpp").write_text(SECOND)
    return shop


def test_workshop_patches_a_copy_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "patches", lambda: [written(tmp_path, PATCH)])
    shop = unpacked(tmp_path)
    for _ in range(2):  # A second run starts from the published source again.
        shop.fetch()
        assert (shop.engine_source / "first.cpp").read_text() == "one\n2\n2.5\nthree\n4\n"
    assert (shop.source / "first.cpp").read_text() == FIRST
    assert shop.patch_names == ["1-change"]


def test_workshop_without_patches_builds_the_published_source(tmp_path: Path) -> None:
    shop = unpacked(tmp_path, patched=False)
    shop.fetch()
    assert shop.engine_source == shop.source == tmp_path / f"pywhispercpp-{VERSION}"
    assert shop.patch_names == []


def test_workshop_says_what_to_do_about_a_patch_that_does_not_fit(tmp_path: Path) -> None:
    # The real patches do not fit this source.
    with pytest.raises(BuildError, match=r"which is not in .*--no-patches"):
        unpacked(tmp_path).fetch()
