"""The catalogue: the file that a name means, and the checks that no damaged file passes.

The check of the structure is tried on a small file made here: whole, cut short, and damaged in
every way that hypothesis finds. It raises CatalogError or accepts, and never raises anything else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.model_files import catalog
from app.model_files import ggml as modelfile
from app.model_files import verify as verified
from app.model_files.catalog import CatalogError, ModelFile
from app.model_files.ggml import Hyperparameters

ROOT = Path(__file__).resolve().parent.parent
OFFICIAL = [
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
    "large-v1", "large-v2", "large-v3", "large-v3-turbo",
]  # fmt: skip
HP = Hyperparameters(51864, 4, 32, 1, 1, 4, 32, 1, 1, 80, 1)


def model_bytes(hp: Hyperparameters = HP) -> bytes:
    """A whole ggml Whisper file of the given shape; its weights are zeros."""
    out = [struct.pack("<12i", modelfile.MAGIC, *dataclasses.astuple(hp))]
    out.append(struct.pack("<2i", hp.n_mels, 201) + bytes(hp.n_mels * 201 * 4))
    out.append(struct.pack("<i", 50257) + struct.pack("<i1s", 1, b"a") * 50257)
    matrix = modelfile.FILE_TYPES[hp.ftype % 1000]
    for tensor in modelfile.expected_tensors(hp):
        kind = {"matrix": matrix, "convolution": 1, "float32": 0}[tensor.kind]
        name = tensor.name.encode()
        out.append(struct.pack("<3i", len(tensor.shape), len(name), kind))
        out.append(struct.pack(f"<{len(tensor.shape)}i", *reversed(tensor.shape)) + name)
        size = modelfile.tensor_bytes(tensor.shape, kind)
        assert size is not None
        out.append(bytes(size))
    return b"".join(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "ggml-mine.bin"
    path.write_bytes(model_bytes())
    return path


# --- names -------------------------------------------------------------------------------


def test_catalogue_has_every_official_name_and_a_hash_for_each_file() -> None:
    entries = catalog.entries()
    assert list(dict.fromkeys(entry.model for entry in entries)) == OFFICIAL
    assert len({entry.file for entry in entries}) == len(entries)
    for entry in entries:
        lengths = {"sha1": 40, "sha256": 64}
        assert {kind: len(digest) for kind, digest in entry.digests} == lengths
        assert entry.multilingual == (not entry.model.endswith(".en"))
        assert entry.size is None or entry.size > 30_000_000


@pytest.mark.parametrize("model", OFFICIAL)
def test_find_returns_the_recommended_file_for_a_bare_name(model: str) -> None:
    entry = catalog.find(model)
    assert entry is not None
    small = model.split(".")[0] in ("tiny", "base", "small")
    # Of large-v1 upstream publishes the unquantized file only.
    expected = "q8_0" if small else "f16" if model == "large-v1" else "q5_0"
    assert entry.quantization == expected
    assert entry.name == f"{model}-{expected}"
    assert catalog.find(f"{model}-f16").file == f"ggml-{model}.bin"


def test_sizes_match_the_shapes_of_the_models() -> None:
    """The byte counts come from published lists; arithmetic confirms them."""
    shapes = {
        "tiny": (384, 6, 4, 4), "base": (512, 8, 6, 6), "small": (768, 12, 12, 12),
        "medium": (1024, 16, 24, 24), "large": (1280, 20, 32, 32), "turbo": (1280, 20, 32, 4),
    }  # fmt: skip
    # Bytes of the words themselves: 50,257 with their lengths, as counted in tiny.en, base.
    words: dict[bool, int] = {}
    kinds = {"f16": 1, "q8_0": 8, "q5_1": 7, "q5_0": 6}
    for entry in catalog.entries():
        family = "turbo" if "turbo" in entry.model else entry.model.split(".")[0].split("-")[0]
        d, heads, encoder, decoder = shapes[family]
        v3 = entry.model.startswith("large-v3")
        n_vocab = 51866 if v3 else 51865 if entry.multilingual else 51864
        n_mels = 128 if v3 else 80
        hp = Hyperparameters(n_vocab, 1500, d, heads, encoder, 448, d, heads, decoder, n_mels, 1)
        total = 48 + 8 + n_mels * 201 * 4 + 4
        for tensor in modelfile.expected_tensors(hp):
            kind = {"matrix": kinds[entry.quantization], "convolution": 1, "float32": 0}
            size = modelfile.tensor_bytes(tensor.shape, kind[tensor.kind])
            assert size is not None
            total += 4 * (3 + len(tensor.shape)) + len(tensor.name) + size
        assert entry.size is not None
        assert words.setdefault(entry.multilingual, entry.size - total) == entry.size - total, entry


def test_obtain_suggests_similar_names_for_an_unknown_one() -> None:
    with pytest.raises(CatalogError, match=r"tiny\.en.*--list"):
        catalog.obtain("tiny.em", [])


def test_obtain_names_a_missing_path() -> None:
    with pytest.raises(CatalogError, match=r"no model file /no/such\.bin: check the path"):
        catalog.obtain("/no/such.bin", [])


@pytest.mark.parametrize("spec", ["~nobody-of-that-name/x.bin", "a" * 300, "/" + "a" * 300])
def test_obtain_reports_an_invalid_path(spec: str) -> None:
    with pytest.raises(CatalogError, match=r"check the path"):
        catalog.obtain(spec, [])


def test_obtain_reports_an_unreadable_directory() -> None:
    # Root may enter every directory, so it is one whose name is too long.
    with pytest.raises(CatalogError, match=r"aaa/ggml-tiny\.en-q8_0\.bin \(File name too long\)"):
        catalog.obtain("tiny.en", [Path("a" * 300)], offline=True)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"models": [{}]}', '{"models": 3}'])
def test_entries_reports_a_damaged_catalogue(tmp_path: Path, text: str) -> None:
    broken = tmp_path / "catalog.json"
    broken.write_text(text)
    with pytest.raises(CatalogError, match="restore it from the repository"):
        catalog.entries(broken)
    with pytest.raises(CatalogError, match="restore it from the repository"):
        catalog.entries(tmp_path / "none.json")


# --- official files ------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """A catalogue of one small model, a directory for it, and its bytes."""
    data = os.urandom(10_000)
    document = {
        "models": [
            {
                "name": "tiny.en",
                "multilingual": False,
                "recommended": "q8_0",
                "memory_overhead_mib": 1,
                "files": [
                    {
                        "quantization": "q8_0",
                        "file": "ggml-tiny.en-q8_0.bin",
                        "bytes": len(data),
                        "sha1": hashlib.sha1(data).hexdigest(),
                        "sha256": hashlib.sha256(data).hexdigest(),
                    }
                ],
            }
        ]
    }
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps(document))
    directory = tmp_path / "models"
    directory.mkdir()
    return path, directory, data


def test_obtain_reads_a_verified_file_only_once(
    small: tuple[Path, Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, directory, data = small
    path = directory / "ggml-tiny.en-q8_0.bin"
    path.write_bytes(data)
    expected = ModelFile(path, "tiny.en-q8_0")
    assert catalog.obtain("tiny.en", [directory], offline=True, catalog=listing) == expected
    assert (directory / ".verified.json").exists()

    def read(*_: object) -> bool:
        raise AssertionError("hashed again")

    monkeypatch.setattr(verified, "matches", read)
    assert catalog.obtain("tiny.en-q8_0", [directory], catalog=listing) == expected


def test_obtain_imports_no_network_code_for_a_verified_model(
    small: tuple[Path, Path, bytes],
) -> None:
    """Hashing, which loads OpenSSL, is not imported either."""
    listing, directory, data = small
    (directory / "ggml-tiny.en-q8_0.bin").write_bytes(data)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from app.model_files import catalog\n"
        f"catalog.obtain('tiny.en', [Path({str(directory)!r})], catalog=Path({str(listing)!r}))\n"
        "print(*sys.modules)\n"
    )
    heavy = {"hashlib", "ssl", "http.client", "urllib.request", "email", "subprocess", "tempfile"}

    def loaded() -> set[str]:
        # -S: without the imports of .pth files in the environment.
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return heavy & set(done.stdout.split())

    assert loaded() == {"hashlib", "tempfile"}  # hashes the file and writes the note
    assert loaded() == set()


def test_obtain_takes_the_first_directory_with_the_file(
    small: tuple[Path, Path, bytes], tmp_path: Path
) -> None:
    listing, directory, data = small
    other = tmp_path / "other"
    other.mkdir()
    for where in (directory, other):
        (where / "ggml-tiny.en-q8_0.bin").write_bytes(data)
    for order in ([directory, other], [other, directory], [tmp_path / "none", other]):
        found = catalog.obtain("tiny.en", order, offline=True, catalog=listing)
        assert found.path.parent == (order[0] if order[0].exists() else order[1])


@pytest.mark.parametrize("how", ["flipped", "short", "long", "empty"])
def test_obtain_rejects_a_damaged_official_file_and_keeps_it(
    small: tuple[Path, Path, bytes], how: str
) -> None:
    listing, directory, data = small
    path = directory / "ggml-tiny.en-q8_0.bin"
    path.write_bytes(data)
    catalog.obtain("tiny.en", [directory], offline=True, catalog=listing)
    bad = {
        "flipped": bytes([data[0] ^ 1]) + data[1:],
        "short": data[:-1],
        "long": data + b"x",
        "empty": b"",
    }[how]
    path.write_bytes(bad)  # The note of the first check must not cover this change.
    with pytest.raises(CatalogError, match=r"not the official tiny\.en-q8_0.*delete it"):
        catalog.obtain("tiny.en", [directory], offline=True, catalog=listing)
    assert path.read_bytes() == bad


def test_obtain_hashes_again_after_a_damaged_note(small: tuple[Path, Path, bytes]) -> None:
    listing, directory, data = small
    (directory / "ggml-tiny.en-q8_0.bin").write_bytes(data)
    for text in ("", "[1]", '{"ggml-tiny.en-q8_0.bin": 3}'):
        (directory / ".verified.json").write_text(text)
        catalog.obtain("tiny.en", [directory], offline=True, catalog=listing)


def test_note_is_written_to_the_cache_if_the_directory_is_read_only(
    small: tuple[Path, Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, directory, data = small
    path = directory / "ggml-tiny.en-q8_0.bin"
    path.write_bytes(data)
    # Root may write anywhere, so a directory with the name of the note prevents the write.
    (directory / ".verified.json").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    catalog.obtain("tiny.en", [directory], offline=True, catalog=listing)
    assert str(path) in json.loads((tmp_path / "cache/node-whisper/verified.json").read_text())
    (entry,) = catalog.entries(listing)
    assert verified.remembered(entry, path)


def test_obtain_explains_a_missing_file_when_offline(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"--offline is set.*download_model\.py tiny\.en-q8_0"):
        catalog.obtain("tiny.en", [tmp_path], offline=True)


# --- the structure of a file ----------------------------------------------------------------


def test_obtain_names_an_own_file_by_its_stem(whole: Path) -> None:
    assert catalog.obtain(str(whole), []) == ModelFile(whole, "mine")
    structure = modelfile.inspect(whole)
    assert structure.hyperparameters == HP
    assert len(structure.vocabulary) == 50257
    last = structure.tensors[-1]
    assert last.offset + last.size == whole.stat().st_size


@pytest.mark.parametrize("ftype", [0, 1, 2007, 2008, 2009, 1009, 1008])
def test_inspect_accepts_every_file_type_of_upstream(tmp_path: Path, ftype: int) -> None:
    hp = dataclasses.replace(HP, ftype=ftype, n_vocab=51866, n_mels=128)
    path = tmp_path / "model.bin"
    data = model_bytes(hp)
    if ftype == 0:  # in a float32 file the convolutions are float32 too; model_bytes writes float16
        path.write_bytes(data)
        with pytest.raises(CatalogError, match=r"conv1\.weight is of type 1, not 0"):
            modelfile.inspect(path)
        return
    path.write_bytes(data)
    assert modelfile.inspect(path).hyperparameters.multilingual


def test_inspect_reports_a_directory_and_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(CatalogError):
        modelfile.inspect(tmp_path)
    with pytest.raises(CatalogError, match="check the path"):
        modelfile.inspect(tmp_path / "none")


def test_inspect_rejects_bytes_after_the_last_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for tail in (b"x", bytes(12), bytes(100)):
        path.write_bytes(model_bytes() + tail)
        with pytest.raises(CatalogError):
            modelfile.inspect(path)


def test_inspect_rejects_a_missing_last_tensor(tmp_path: Path) -> None:
    """Cut exactly between two tensors: the engine would only log it."""
    data = model_bytes()
    last = b"encoder.ln_post.bias"
    path = tmp_path / "model.bin"
    path.write_bytes(data[: data.rindex(last) - 16])
    with pytest.raises(CatalogError, match=r"1 of its tensors are missing .*ln_post\.bias"):
        modelfile.inspect(path)


INTEGERS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-2, 3000))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 13), INTEGERS)
def test_inspect_checks_every_number_in_the_head(whole: Path, position: int, value: int) -> None:
    _mutated(whole, 4 * position, struct.pack("<i", value))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_inspect_checks_damage_anywhere(whole: Path, data: st.DataObject) -> None:
    # Anywhere: in the head, in the words' lengths, in the tensors' headers, in the weights.
    size = whole.stat().st_size
    position = data.draw(st.one_of(st.integers(0, size - 1), st.integers(64376, 64500)))
    _mutated(whole, position, data.draw(st.binary(min_size=1, max_size=16)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_inspect_checks_the_header_of_every_tensor(whole: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(modelfile.inspect(whole).tensors))
    back = data.draw(st.integers(1, 12 + 4 * len(place.shape) + len(place.name)))
    _mutated(whole, place.offset - back, data.draw(st.binary(min_size=1, max_size=4)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_inspect_rejects_any_truncation(whole: Path, data: st.DataObject) -> None:
    size = whole.stat().st_size
    length = data.draw(st.one_of(st.integers(0, size - 1), st.integers(0, 100)))
    content = whole.read_bytes()
    short = whole.with_name("short.bin")
    short.write_bytes(content[:length])
    with pytest.raises(CatalogError, match="Fetch or convert it again"):
        modelfile.inspect(short)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_inspect_rejects_any_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(struct.pack("<i", modelfile.MAGIC) + data)
    with pytest.raises(CatalogError):
        modelfile.inspect(path)


def _mutated(path: Path, position: int, data: bytes) -> None:
    """Write `data` at `position`, check, restore: CatalogError, or a structure that still
    accounts for every byte."""
    with path.open("r+b") as file:
        file.seek(position)
        before = file.read(len(data))
        data = data[: len(before)]
        file.seek(position)
        file.write(data)
        file.flush()
        verdict = ""
        try:
            structure = modelfile.inspect(path)
        except CatalogError as error:
            verdict = str(error)
        finally:
            file.seek(position)
            file.write(before)
    assert "\n" not in verdict
    if not verdict:
        last = structure.tensors[-1]
        assert last.offset + last.size == path.stat().st_size
