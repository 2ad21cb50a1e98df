"""Tests the arm64 image on another machine: builds it with the real Dockerfile and runs it.

`emulation.py` lets the kernel start arm64 programs under QEMU. `base.py` makes a base image from
Debian's packages, so that no image registry is needed. `builder.py` calls buildah. `container.py`
runs the image under runc with a read-only root, without capabilities, and as an unprivileged user.
`checks.py` has the checks of the running image. QEMU's user mode does not emulate the speed of a
processor, so nothing here measures time.

Standard library only. It needs root, and the Debian packages in `PACKAGES` of `cli.py`.
"""
