"""buildah with a separate storage, independent of the other containers on the machine."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BuilderError(Exception):
    """buildah failed; its output is on stderr or in the log."""


@dataclass(frozen=True)
class Layer:
    """One layer of an image: its instruction, and its bytes uncompressed and compressed."""

    created_by: str
    bytes: int
    compressed: int


@dataclass(frozen=True)
class Builder:
    """A storage in `folder`, and the operations on it."""

    folder: Path

    def import_root(self, archive: Path, name: str, environment: Mapping[str, str]) -> None:
        """Make an image `name` from an archive of an arm64 root directory."""
        container = self._out("from", "--arch", "arm64", "scratch")
        self._out("add", container, str(archive), "/")
        settings = [f"--env={key}={value}" for key, value in environment.items()]
        self._out("config", "--arch", "arm64", "--cmd", "python3", *settings, container)
        self._out("commit", "--quiet", "--rm", container, name)

    def build(
        self,
        context: Path,
        name: str,
        arguments: Mapping[str, str],
        mounts: Sequence[tuple[Path, str]],
        log: Path,
    ) -> None:
        """Build `context`/Dockerfile.arm64 as `name`. `mounts` exist only during the build."""
        command = ["bud", "--isolation", "chroot", "--arch", "arm64", "--pull-never"]
        # Docker's format, because the OCI format has no HEALTHCHECK.
        command += ["--format", "docker", "--layers", "--network", "host", "-t", name]
        # Debian 12's buildah does not see that a stage is used if an argument is part of its name.
        command += ["--skip-unused-stages=false"]
        command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        command += [f"--volume={source}:{target}:ro" for source, target in mounts]
        command += ["-f", str(context / "Dockerfile.arm64"), str(context)]
        with log.open("wb") as output:
            done = subprocess.run(
                self._command(command), stdout=output, stderr=subprocess.STDOUT, env=self._env()
            )
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise BuilderError(f"the build failed; see its output in {log}:\n{tail}")

    def config(self, name: str) -> dict[str, Any]:
        """The image's run settings: Entrypoint, Env, User, Healthcheck, ..."""
        document = json.loads(self._out("inspect", "--type", "image", name))
        found: dict[str, Any] = document["Docker"]["config"]
        return found

    def layers(self, name: str) -> list[Layer]:
        """The image's layers from the bottom up."""
        document = json.loads(self._out("inspect", "--type", "image", name))
        history = [entry for entry in document["History"] if not entry.get("empty_layer")]
        folder = self.folder / "exported"
        self._out("push", "--quiet", "--compression-format", "gzip", name, f"oci:{folder}:image")
        index = json.loads((folder / "index.json").read_text())
        manifest = _blob(folder, index["manifests"][-1]["digest"])
        layers = json.loads(manifest.read_text())["layers"]
        rows = zip(history, layers, strict=True)
        return [
            Layer(
                entry.get("created_by", ""),
                _unpacked(_blob(folder, layer["digest"])),
                layer["size"],
            )
            for entry, layer in rows
        ]

    def container(self, name: str) -> tuple[str, Path]:
        """Make a container of the image; return its name and the mount point of its root."""
        container = self._out("from", "--arch", "arm64", "--pull-never", name)
        return container, Path(self._out("mount", container))

    def remove(self, container: str) -> None:
        self._out("umount", container)
        self._out("rm", container)

    def has(self, name: str) -> bool:
        done = subprocess.run(
            self._command(["inspect", "--type", "image", name]),
            capture_output=True,
            env=self._env(),
        )
        return done.returncode == 0

    def _out(self, *arguments: str) -> str:
        done = subprocess.run(
            self._command(list(arguments)), capture_output=True, text=True, env=self._env()
        )
        if done.returncode != 0:
            raise BuilderError(f"buildah {' '.join(arguments)}: {done.stderr.strip()[-800:]}")
        return done.stdout.strip()

    def _command(self, arguments: list[str]) -> list[str]:
        return ["buildah", *arguments]

    def _env(self) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "storage.conf"
        # vfs works everywhere, but copies every layer.
        driver = "overlay" if "overlay" in Path("/proc/filesystems").read_text() else "vfs"
        file.write_text(
            f'[storage]\ndriver = "{driver}"\nrunroot = "{self.folder}/run"\n'
            f'graphroot = "{self.folder}/storage"\n'
        )
        return {**os.environ, "CONTAINERS_STORAGE_CONF": str(file), "BUILDAH_ISOLATION": "chroot"}


def _blob(folder: Path, digest: str) -> Path:
    kind, _, number = digest.partition(":")
    return folder / "blobs" / kind / number


def _unpacked(blob: Path) -> int:
    """Bytes of a compressed layer before compression."""
    total = 0
    with gzip.open(blob) as stream:
        while chunk := stream.read(1 << 20):
            total += len(chunk)
    return total
