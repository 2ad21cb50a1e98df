"""Turn a trained Whisper model into a ggml file that the node can load.

SOURCE is a CTranslate2 folder (float16 or float32), a Hugging Face folder (safetensors), or
a ggml file to quantize again. Needs requirements-convert.txt (numpy, gguf), never torch.
Nothing is written before the source is known to be a complete Whisper model. The result gets its
name only after it was checked, and loaded once if the engine is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.model_files.folders import models_folder

if TYPE_CHECKING:
    from app.model_files.convert.source import Source

# Memory for loading beside the file itself, at most (large: about 1 GB by whisper.cpp's README).
# Without it the kernel would kill the check, and a sound result with it: large-v3 in f16 can be
# made on a board with 4 GB, but not loaded there.
LOAD_BYTES = 1 << 30

LINE = 1000  # characters of an error, at most

# Loads the file in a process of its own: a model the engine chokes on may crash it.
# argv: the file. Exit status 3: the engine is not installed here.
LOAD = """
import sys
try:
    import _pywhispercpp as engine
except ImportError:
    sys.exit(3)
options = engine.whisper_context_default_params()
context = engine.whisper_init_from_file_with_params(sys.argv[1], options)
sys.exit(0 if context is not None else 1)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        from app.model_files.convert.source import ConvertError
    except ImportError as error:
        print(f"error: {error}: pip install -r requirements-convert.txt", file=sys.stderr)
        return 1
    try:
        output = _convert(options)
    except (ConvertError, OSError) as error:
        print(f"error: {_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(output)
    return 0


def _convert(options: argparse.Namespace) -> Path:
    from app.model_files.convert.blocks import FORMATS
    from app.model_files.convert.source import ConvertError
    from app.model_files.convert.writer import write
    from app.model_files.progress import Bar

    source_path, form = Path(options.source), FORMATS[options.quantize]
    source = _open(source_path)
    output = Path(options.output) if options.output else _default_output(source_path, form.name)
    if output.exists() and not options.force:
        raise ConvertError(f"{output} exists: name another file with -o, or add --force")
    hp = source.hyperparameters
    language = "multilingual" if hp.multilingual else "English only"
    print(
        f"{source.description}: {language}, {hp.n_audio_layer} encoder and {hp.n_text_layer} "
        f"decoder layers of width {hp.n_audio_state}, {hp.n_mels} mel bands",
        file=sys.stderr,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            with Bar(output.name) as bar:
                write(source, form, file, bar)
            file.flush()
            os.fsync(file.fileno())
        print(_check(temporary), file=sys.stderr)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's own mode is for secrets
        os.replace(temporary, output)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return output


def _open(path: Path) -> Source:
    """Return the Source in `path`; the files there decide its kind."""
    from app.model_files.convert import ctranslate2, ggmlfile, huggingface
    from app.model_files.convert.source import ConvertError

    if path.is_file():
        return ggmlfile.open_file(path)
    if (path / "model.bin").is_file():
        return ctranslate2.open_folder(path)
    if (path / "config.json").is_file():
        return huggingface.open_folder(path)
    if path.is_dir():
        raise ConvertError(
            f"{path} holds neither model.bin (CTranslate2) nor config.json with safetensors "
            "(Hugging Face)"
        )
    raise ConvertError(f"{path} does not exist: name a model's folder or a ggml file")


def _check(path: Path) -> str:
    """Check the written file; a line for a person about the check. Raises ConvertError."""
    from app.model_files.convert.source import ConvertError
    from app.model_files.entry import CatalogError
    from app.model_files.ggml import inspect

    try:
        inspect(path)
    except CatalogError as error:
        raise ConvertError(f"the result is damaged, which is a bug: {error}") from error
    free = _available_bytes()
    if free is not None and free < path.stat().st_size + LOAD_BYTES:
        return f"checked: structure only (not loaded: only {free >> 20} MiB of memory are free)"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return "checked: structure; loaded once with the engine"
    if done.returncode == 3:
        return "checked: structure only (pywhispercpp is not installed here, so it was not loaded)"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    why = lines[-1] if lines else "no message"
    raise ConvertError(f"the engine does not load the result (status {done.returncode}: {why})")


def _default_output(source: Path, form: str) -> Path:
    stem = source.stem.removeprefix("ggml-") if source.is_file() else source.resolve().name
    for other in ("-q8_0", "-q5_1", "-q5_0", "-f16"):
        stem = stem.removesuffix(other)
    suffix = "" if form == "f16" else f"-{form}"
    return models_folder() / f"ggml-{stem}{suffix}.bin"


def _available_bytes() -> int | None:
    """Return the memory that is free without swapping; None where the kernel does not report it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _line(text: str) -> str:
    """Make one short printable line: a message may quote a damaged file."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return plain if len(plain) <= LINE else f"{plain[:LINE]}..."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="convert_model.py", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "source", metavar="SOURCE", help="a CTranslate2 or Hugging Face folder, or a ggml file"
    )
    parser.add_argument(
        "--quantize",
        choices=("q8_0", "q5_1", "q5_0", "f16"),
        default="f16",
        help="format of the large matrices (default: f16, unquantized; on a CPU take q8_0)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="default: models/ggml-NAME.bin")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    return parser
