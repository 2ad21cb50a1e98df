"""A container of the image under runc with a read-only root, without capabilities, not as root.

The container uses the host's network, so that a client on the host reaches its ports without
further set-up. Its other namespaces are separate. Only /tmp and the volumes are writable.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_NAMESPACES = ("pid", "mount", "ipc", "uts")
_VOLUMES = ("/models", "/spool", "/journal")


class Container:
    """A running container. `config` is that of the image; `environment` is added to its Env."""

    def __init__(
        self, root: Path, config: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._name = f"node-whisper-{uuid.uuid4().hex[:8]}"
        self._scratch = tempfile.TemporaryDirectory(prefix="verify-arm64-")
        bundle = Path(self._scratch.name)
        settings = [*config["Env"], *(f"{key}={value}" for key, value in environment.items())]
        spec = _spec(root, bundle, config, settings)
        (bundle / "config.json").write_text(json.dumps(spec))
        self._process = subprocess.Popen(
            ["runc", "run", "--bundle", str(bundle), self._name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self.output: list[str] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self._process.stdout, self.output),
                (self._process.stderr, self.log),
            )
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.signal("KILL")
        self._process.wait()
        for thread in self._threads:
            thread.join()
        subprocess.run(["runc", "delete", "--force", self._name], capture_output=True, check=False)
        self._scratch.cleanup()

    def wait_for_log(self, wanted: Callable[[str], bool], seconds: float) -> str | None:
        """Wait for a line on stderr that is `wanted`; None if there is none within `seconds`."""

        def found() -> str | None:
            return next((line for line in list(self.log) if wanted(line)), None)

        with self._changed:
            self._changed.wait_for(
                lambda: found() is not None or self._process.poll() is not None, seconds
            )
        return found()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a further program in the container as its user."""
        return subprocess.run(
            ["runc", "exec", self._name, *command], capture_output=True, text=True, check=False
        )

    def signal(self, name: str) -> None:
        subprocess.run(["runc", "kill", self._name, name], check=False)

    def status_of_first(self) -> dict[str, str]:
        """The fields of /proc/1/status inside the container."""
        lines = self.run("cat", "/proc/1/status").stdout.splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; return its exit status, or None after a timeout."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        self._process.wait()
        with self._changed:
            self._changed.notify_all()


def _spec(
    root: Path, bundle: Path, config: Mapping[str, Any], settings: list[str]
) -> dict[str, Any]:
    """An OCI run-time configuration (opencontainers/runtime-spec, config.md)."""
    user, _, group = config["User"].partition(":")
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
    ]
    for volume in _VOLUMES:
        source = bundle / volume.strip("/")
        source.mkdir()
        # Docker fills a new volume with the directory of the image and its owner.
        status = (root / volume.strip("/")).stat()
        _own(source, status.st_uid, status.st_gid, status.st_mode & 0o777)
        mounts.append(
            {"destination": volume, "type": "bind", "source": str(source), "options": ["rbind"]}
        )
    return {
        "ociVersion": "1.0.0",
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*config["Entrypoint"], *(config.get("Cmd") or [])],
            "env": settings,
            "cwd": config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
    }


def _own(path: Path, user: int, group: int, mode: int) -> None:
    path.chmod(mode)
    os.chown(path, user, group)
