"""Cuts the power of a broker: its store is on a file system of its own, whose image is copied the
moment the last acknowledgement has come, and mounted anew for another server.

The image holds what the kernel has written to the disk; what it only keeps in memory is missing,
as after a power cut. It needs root and a loop device.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from broker import Broker
from cluster import Admin

from app.queue import names

_IMAGE_BYTES = 256 * 1024 * 1024


class NoLoopMount(Exception):
    """This machine cannot mount an image; the reason is for the user."""


def jobs_left_after_power_cut(folder: Path, jobs: int, sync: str) -> int:
    """Return how many of `jobs` acknowledged jobs of 20 kB are left with JetStream's
    `sync_interval` set to `sync`. Raises `NoLoopMount`."""
    image, copy = folder / "disk", folder / "disk-after"
    with open(image, "wb") as file:
        file.truncate(_IMAGE_BYTES)
    _run("mkfs.ext4", "-q", str(image))
    for name in ("before", "after"):
        (folder / name).mkdir()
    with _mounted(image, folder / "before"):
        broker = Broker(folder / "before", sync=sync)
        try:
            admin = Admin(broker.url)
            admin.init()
            for number in range(jobs):
                admin.submit(f"j{number}", bytes(20_000))
            shutil.copyfile(image, copy)
            assert admin.count(names.JOBS) == jobs
            admin.close()
        finally:
            broker.kill()
    with _mounted(copy, folder / "after"):
        broker = Broker(folder / "after", sync=sync)
        try:
            admin = Admin(broker.url)
            try:
                return admin.count(names.JOBS)
            except Exception:
                return 0  # not even the stream
            finally:
                admin.close()
        finally:
            broker.kill()


@contextlib.contextmanager
def _mounted(image: Path, at: Path) -> Iterator[None]:
    _run("mount", "-o", "loop", str(image), str(at))
    try:
        yield
    finally:
        _run("umount", str(at))


def _run(*command: str) -> None:
    if os.geteuid() != 0:
        raise NoLoopMount("only root can mount an image")
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise NoLoopMount(f"{command[0]}: {reason.strip()}") from None
