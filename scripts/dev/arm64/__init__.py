"""Proves the arm64 image on a machine that is not one: builds it with the real Dockerfile, runs it.

`emulation.py` has the kernel start arm64 programs under QEMU; `base.py` makes a Debian base image
out of Debian's packages, as no registry of images is needed then; `builder.py` is buildah;
`container.py` runs the image under runc as a careful operator would (read-only root, no
capabilities, nobody's user); `checks.py` is what is asked of it. QEMU's user mode emulates the
instructions, not the time: nothing here is measured.

Standard library only. It needs root, and Debian's packages in `PACKAGES` of `cli.py`.
"""
