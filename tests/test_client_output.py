"""scripts/client.py with --output-dir: the names of the files; none is lost or replaced."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
from pathlib import Path
from types import ModuleType

import pytest
from test_client import CLIENT, OK, Node, answers, client, failure, start  # noqa: F401

TEXT = "Größe <b> & Co. At last.\n"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with recordings and other files."""
    folder = tmp_path / "recordings"
    for name in (
        "b.MP3",
        "a.wav",
        "2024/a.wav",
        ".hidden.wav",
        ".cache/a.wav",
        "list.txt",
        "x.raw",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def tree(folder: Path) -> dict[str, str]:
    """The files below a folder and their content."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_texts_of_a_folder_keep_its_folders(start, recordings, tmp_path):  # noqa: F811
    node = start(answers(OK))
    out = tmp_path / "new" / "texts"
    done = client("--output-dir", out, "--parallel", "3", recordings, port=node.port)
    assert done.returncode == 0, done.stderr
    assert tree(out) == {"2024/a.txt": TEXT, "a.txt": TEXT, "b.txt": TEXT}
    assert done.stdout.decode().splitlines() == [
        str(out / name) for name in ("a.txt", "b.txt", "2024/a.txt")
    ]
    assert done.stderr.decode() == (
        "client.py: files written: 3, kept: 0; recordings that failed: 0\n"
    )
    assert stat.S_IMODE((out / "a.txt").stat().st_mode) == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_each_format_comes_from_one_reply(start, recordings, tmp_path):  # noqa: F811
    node = start(answers(OK))
    out, clip = tmp_path / "out", recordings / "a.wav"
    done = client("--output-dir", out, "--format", "txt, srt,vtt,json", clip, port=node.port)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(node.received) == 1
    assert node.received[0][0]["max-line-width"] == 42
    found = tree(out)
    assert list(found) == ["a.json", "a.srt", "a.txt", "a.vtt"]
    assert found["a.txt"] == TEXT
    assert json.loads(found["a.json"]) == {"file": str(clip), **OK}
    for flag in ("srt", "vtt"):
        assert found[f"a.{flag}"] == client(f"--{flag}", clip, port=node.port).stdout.decode()


def test_files_that_exist_are_kept_and_not_sent_again(start, recordings, tmp_path):  # noqa: F811
    node = start(answers(OK))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("mine")
    run = ("--output-dir", out, "--srt", recordings / "a.wav", recordings / "b.MP3")
    assert client(*run, port=node.port).returncode == 0
    assert len(node.received) == 2
    done = client(*run[:2], "--format", "txt,srt", *run[3:], port=node.port)
    assert done.returncode == 0
    # Of a.wav both files exist; the text of b.MP3 is new.
    assert len(node.received) == 3
    assert f"{out / 'a.txt'} exists; --overwrite replaces it" in done.stderr.decode()
    assert (out / "a.txt").read_text() == "mine"
    assert done.stdout.decode() == f"{out / 'b.txt'}\n"
    assert client("--overwrite", *run[:2], *run[3:], port=node.port).returncode == 0
    assert (out / "a.txt").read_text(encoding="utf-8") == TEXT


def test_failed_recordings_are_listed_at_the_end(start, recordings, tmp_path):  # noqa: F811
    def reply(body: bytes):
        return failure("bad_audio", "it is damaged") if body == b"a.wav" else OK

    node = start(answers(reply))
    out = tmp_path / "out"
    done = client("--output-dir", out, recordings, port=node.port)
    assert done.returncode == 1
    assert list(tree(out)) == ["2024/a.txt", "b.txt"]
    first = f"{recordings / 'a.wav'}: bad_audio: it is damaged"
    assert done.stderr.decode().splitlines() == [
        first,
        "client.py: files written: 2, kept: 0; recordings that failed: 1",
        f"  {first}",
    ]


def test_text_that_cannot_be_written_fails_alone(start, recordings, tmp_path):  # noqa: F811
    node = start(answers(OK))
    out = tmp_path / "out"
    out.mkdir()
    (out / "2024").write_text("a file where a folder must be")
    done = client("--output-dir", out, recordings, port=node.port)
    assert done.returncode == 1
    assert "a.txt cannot be written: " in done.stderr.decode()
    assert list(tree(out)) == ["2024", "a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "txt"), "need --output-dir"),
        (("--overwrite",), "need --output-dir"),
        (("--output-dir", "out", "--format", "doc"), "'doc' is not one of txt, srt, vtt, json"),
        (("--output-dir", "out", "--format", "txt", "--srt"), "--format replaces --srt"),
        (("--output-dir", "out", "--live"), "does not go with --live"),
        (("--output-dir", "out", "--fire-and-forget"), "does not go with --live"),
        (("--output-dir", "file"), "file: File exists"),
    ],
)
def test_options_that_do_not_fit_are_rejected(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("a.wav").write_text("x")
    done = client(*arguments, "a.wav", port=1)
    assert done.returncode == 2
    assert message in done.stderr.decode()


def test_folder_without_audio_is_rejected(tmp_path):
    (tmp_path / "list.txt").write_text("x")
    done = client("--output-dir", tmp_path / "out", tmp_path, port=1)
    assert done.returncode == 2
    assert "holds no audio files" in done.stderr.decode()
    assert not (tmp_path / "out").exists()


def test_folder_without_an_output_folder_fails_alone(start, recordings):  # noqa: F811
    node = start(answers(OK))
    done = client(recordings, recordings / "a.wav", port=node.port)
    assert (done.returncode, done.stdout.decode()) == (1, TEXT)
    assert done.stderr.decode() == (
        f"{recordings}: is a folder: add --output-dir for the texts of the files in it\n"
    )


def test_raw_samples_of_a_folder_are_sent_with_their_format(start, recordings, tmp_path):  # noqa: F811
    node = start(answers(OK))
    raw = ("--encoding", "s16", "--sample-rate", "16000", "--channels", "1")
    out = tmp_path / "out"
    assert client("--output-dir", out, *raw, recordings, port=node.port).returncode == 0
    assert "x.txt" in tree(out)


def names(module: ModuleType, *files: str, folders: tuple[str, ...] = ()) -> list[str]:
    """The paths of the texts below the folder `out`, for files of these paths."""
    sources = [
        module.Source(name, os.path.relpath(name, name.split("/")[0]), name.split("/")[0])
        if name.split("/")[0] in folders
        else module.Source(name, os.path.basename(name), os.path.basename(os.path.dirname(name)))
        for name in files
    ]
    return [os.path.relpath(path, "out") for path in module.output_names(sources, "out")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("x/talk.mp3", "y/other.mp3"), ["talk", "other"]),
        (("x/talk.mp3", "x/talk.wav"), ["talk.mp3", "talk.wav"]),
        (("x/talk.mp3", "y/talk.mp3", "y/b.wav"), ["x/talk.mp3", "y/talk.mp3", "b"]),
        (("x/talk.mp3", "x/TALK.wav"), ["talk.mp3", "TALK.wav"]),
        # The plain name of the third is the whole name of the first.
        (("x/a.mp3", "x/a.wav", "x/a.mp3.wav"), ["x/a.mp3", "a.wav", "a.mp3.wav"]),
        (("p/x/a.mp3", "q/x/a.mp3"), ["x/a.mp3", "x/a.mp3 (2)"]),
        # A text never replaces a recording.
        (("out/a.json",), ["a.json"]),
        (("x/a.mp3", "-"), ["a", "-"]),
    ],
)
def test_same_names_from_different_folders_do_not_collide(module, files, expected):
    assert names(module, *files) == expected
    assert names(module, *files[::-1])[::-1] == expected or "(2)" in " ".join(expected)


def test_folders_with_the_same_files_do_not_collide(module):
    found = names(module, "f/s/a.wav", "g/s/a.wav", "g/b.wav", folders=("f", "g"))
    assert found == ["f/s/a.wav", "g/s/a.wav", "b"]


def test_file_named_twice_is_sent_once(start, recordings, tmp_path):  # noqa: F811
    node = start(answers(OK))
    done = client(
        "--output-dir", tmp_path / "out", recordings, recordings / "a.wav", port=node.port
    )
    assert done.returncode == 0
    assert len(node.received) == 3


@pytest.mark.parametrize("links", [True, False])
def test_file_is_written_whole_and_never_replaced_unasked(module, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    path = tmp_path / "deep" / "talk.txt"
    assert module.write_file(str(path), "one", False)
    assert not module.write_file(str(path), "two", False)
    assert path.read_text() == "one"
    assert module.write_file(str(path), "two", True)
    assert path.read_text() == "two"
    # A failure leaves the old file, and nothing else.
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(OSError, match="no space"):
        module.write_file(str(path), "three", True)
    assert tree(tmp_path) == {"deep/talk.txt": "two"}


@pytest.mark.slow
def test_texts_of_a_real_node_are_written(tmp_path):
    from node import JFK
    from node import Node as RealNode

    with RealNode() as node:
        forms = ("--format", "txt,vtt")
        done = client("--output-dir", tmp_path / "out", *forms, JFK, port=node.port)
    assert done.returncode == 0, done.stderr
    found = tree(tmp_path / "out")
    assert list(found) == ["jfk.txt", "jfk.vtt"]
    assert "ask not what your country" in found["jfk.txt"]
    assert found["jfk.vtt"].count("-->") >= 3
