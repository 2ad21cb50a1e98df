"""Lets the kernel start arm64 programs, by registering QEMU with binfmt_misc temporarily."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTRY = "qemu-aarch64"
_QEMU = "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"

# The first 20 bytes of an ELF file: 64 bits, little-endian, executable or shared, machine 0xb7
# (ELF specification; EM_AARCH64). The mask leaves out the system's ABI and that last distinction.
_MAGIC = r"\x7fELF\x02\x01\x01\x00" + r"\x00" * 8 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"

# P: keep the program's own name. O: pass it as an open file. F: open QEMU now, so that it is also
# found in a root directory without QEMU.
_FLAGS = "POF"


class EmulationError(Exception):
    """arm64 programs cannot be run here. The text says what to do."""


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Let arm64 programs run within this context; remove registrations and mounts at its end."""
    if platform.machine() == "aarch64":
        yield
        return
    with contextlib.ExitStack() as stack:
        if not (_BINFMT / "register").exists():
            _mount()
            stack.callback(subprocess.run, ["umount", str(_BINFMT)], check=False)
        if not (_BINFMT / _ENTRY).exists():
            rule = f":{_ENTRY}:M::{_MAGIC}:{_MASK}:{_QEMU}:{_FLAGS}"
            try:
                (_BINFMT / "register").write_text(rule)
            except OSError as error:
                raise EmulationError(f"cannot register QEMU with binfmt_misc: {error}") from error
            stack.callback((_BINFMT / _ENTRY).write_text, "-1")
        yield


def _mount() -> None:
    command = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmulationError(
            f"cannot mount binfmt_misc ({done.stderr.strip()}): it takes root, and a kernel with "
            "CONFIG_BINFMT_MISC"
        )
