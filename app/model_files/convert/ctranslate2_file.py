"""The file model.bin of a CTranslate2 folder: the variables in it, and their values.

It is little-endian: version u32, spec name, revision u32, number of variables u32; for each its
name, rank u8, dimensions u32 each, type u8, bytes u32, data; then aliases. A string is its length
u16, with a final NUL. Source: CTranslate2's documentation of its model format
(python/ctranslate2/specs/model_spec.py); numbers of types: its enum DataType.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.model_files.convert.source import MOST_DIMENSIONS, ConvertError

VERSIONS = (4, 5, 6)  # 4 brought the type byte; 6 is current
FLOAT32, INT8, INT16, INT32, FLOAT16, BFLOAT16 = range(6)
ITEM_BYTES = {FLOAT32: 4, INT8: 1, INT16: 2, INT32: 4, FLOAT16: 2, BFLOAT16: 2}
SPEC = "WhisperSpec"


@dataclass(frozen=True)
class Variable:
    """A variable. `offset` and `size` of its data in model.bin are in bytes."""

    shape: tuple[int, ...]
    type: int
    offset: int
    size: int


def read_index(path: Path) -> tuple[dict[str, Variable], dict[str, str]]:
    """Return the variables and the aliases in `path`, without their data. Raises ConvertError."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size

            def number(code: str) -> int:
                return int(struct.unpack("<" + code, file.read(struct.calcsize(code)))[0])

            def string() -> str:
                length = number("H")
                text = file.read(length)
                if len(text) < length:
                    raise ConvertError(f"{path} is truncated: the file ends within a name")
                return text.rstrip(b"\0").decode("utf-8")

            version = number("I")
            if version not in VERSIONS:
                raise ConvertError(
                    f"{path} is not a CTranslate2 model of a known version (found {version}, "
                    f"known {VERSIONS})"
                )
            spec = string()
            if spec != SPEC:
                raise ConvertError(f"{path} holds a {spec}, not Whisper ({SPEC})")
            number("I")  # the spec's revision: all known ones are laid out alike
            return _walk(path, size, number, string, file.tell, file.seek)
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise ConvertError(f"{path} cannot be read as a CTranslate2 model ({error})") from error


def _walk(
    path: Path,
    size: int,
    number: Callable[[str], int],
    string: Callable[[], str],
    tell: Callable[[], int],
    seek: Callable[[int], int],
) -> tuple[dict[str, Variable], dict[str, str]]:
    variables = {}
    for _ in range(number("I")):
        name = string()
        shape = tuple(number("I") for _ in range(number("B")))
        kind = number("B")
        count = number("I")
        if (
            kind not in ITEM_BYTES
            or count != math.prod(shape) * ITEM_BYTES[kind]
            or len(shape) > MOST_DIMENSIONS
        ):
            raise ConvertError(f"{path}: variable {name} is damaged or of an unknown type {kind}")
        variables[name] = Variable(shape, kind, tell(), count)
        if tell() + count > size:
            raise ConvertError(f"{path} is truncated: the file ends within {name}")
        seek(tell() + count)
    aliases = {}
    for _ in range(number("I")):
        name = string()
        aliases[name] = string()
    return variables, aliases


def load(path: Path, name: str, variable: Variable, index: int = 0, parts: int = 1) -> np.ndarray:
    """Return the `index`-th of `parts` equal pieces of a variable's rows. Raises ConvertError."""
    raw = np.dtype({2: "<u2", 4: "<u4", 1: "u1"}[ITEM_BYTES[variable.type]])
    rows = variable.shape[0] // parts if variable.shape else 1
    count = variable.size // raw.itemsize // parts
    data = np.fromfile(path, raw, count, offset=variable.offset + index * count * raw.itemsize)
    if data.size != count:
        raise ConvertError(f"{path} is truncated in {name}")
    return _as_numbers(data, variable.type).reshape(
        (rows, *variable.shape[1:]) if variable.shape else ()
    )


def _as_numbers(raw: np.ndarray, kind: int) -> np.ndarray:
    """Interpret unsigned words as numbers of a CTranslate2 type; bfloat16 becomes float32."""
    if kind == BFLOAT16:
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.view({FLOAT32: "<f4", INT8: "i1", INT16: "<i2", INT32: "<i4", FLOAT16: "<f2"}[kind])
