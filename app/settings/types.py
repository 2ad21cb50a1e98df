"""Value types of the options, on the command line and in variables.

Each function takes the text and returns the value, or raises `argparse.ArgumentTypeError` with one
line for the user.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from app.decoding.context import FULL, EncoderContext
from app.limits import MAX_ENGINES, prompt_fault
from app.protocols.languages import WANTED, LanguageError, language_code, language_codes
from app.queue.credentials import CredentialsError, read_urls

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def number(
    kind: Callable[[str], Any], least: float, most: float | None = None
) -> Callable[[str], Any]:
    """A number by `kind`, from `least` to `most`; NaN is none."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        # Written so that NaN fails it as well.
        if not value >= least or (most is not None and not value <= most):
            limits = f"at least {least:g}" if most is None else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: {limits}")
        return value

    return parse


def choice(*choices: str) -> Callable[[str], str]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return parse


def flag(text: str) -> bool:
    """A boolean variable: 1, true, yes, 0, false or no."""
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of 1, true, yes, 0, false, no")
    return values[text.lower()]


def language(text: str) -> str:
    """A language code, of which only the first part counts, `auto` or `multi`."""
    code = language_code(text)
    if code is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {WANTED}")
    return code


def languages(text: str) -> tuple[str, ...]:
    """Language codes between commas."""
    try:
        return language_codes([text])
    except LanguageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def encoder_context(text: str) -> EncoderContext:
    """`auto`, `full`, or a number of positions; fewer than 64 (1.3 s) would hear nothing."""
    if text in ("auto", "full"):
        return cast(EncoderContext, text)
    positions: int = number(int, 64, FULL)(text)
    return positions


def engines(text: str) -> int | Literal["auto"]:
    """`auto`, or a number of engines."""
    if text == "auto":
        return "auto"
    count: int = number(int, 1, MAX_ENGINES)(text)
    return count


def prompt(text: str) -> str:
    """Words to expect, no more than a prompt may hold."""
    if fault := prompt_fault(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def optional_port(text: str) -> int | None:
    """A port, or None for `off`."""
    if text == "off":
        return None
    port: int = number(int, 0, 65535)(text)
    return port


def http_port(text: str) -> int | Literal["auto"] | None:
    """A port, `auto`, or None for `off`."""
    return "auto" if text == "auto" else optional_port(text)


def broker_urls(text: str) -> tuple[str, ...]:
    """Addresses of a broker between commas."""
    try:
        return read_urls(text)
    except CredentialsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def origins(text: str) -> tuple[str, ...]:
    """Web origins between commas."""
    return tuple(_origin(part.strip()) for part in text.split(","))


def _origin(text: str) -> str:
    # Browsers send it without a path, so a slash at the end would never match. Desktop programs
    # and extensions have schemes of their own (app://obsidian.md, chrome-extension://ID), and
    # programs that load their page from a file may send file://.
    bare = text.rstrip("/").lower()
    if bare == "file:":
        return "file://"
    if bare not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", bare):
        wanted = "an origin such as https://example.com or app://obsidian.md, null, or *"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return _as_sent(bare)


def _as_sent(origin: str) -> str:
    """Return an origin as browsers send it: names in ASCII, and no default port."""
    scheme, _, host = origin.partition("://")
    if scheme not in ("http", "https"):
        return origin
    host = host.removesuffix({"http": ":80", "https": ":443"}[scheme])
    if not host.isascii():
        with contextlib.suppress(UnicodeError):
            host = host.encode("idna").decode()
    return f"{scheme}://{host}"


def name(text: str) -> str:
    """A name of one line, which may be empty."""
    if not text.isprintable() or len(text) > 100:
        raise argparse.ArgumentTypeError("a name has at most 100 characters and one line")
    return text


def names(text: str) -> tuple[str, ...]:
    """Names between commas, none empty."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return found


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks between commas."""
    return tuple(_network(part.strip()) for part in text.split(","))


def _network(text: str) -> Network:
    try:
        # An address stands for itself; one within a network, as ip(8) shows it, for that.
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        wanted = "an address or a network such as 192.168.1.0/24"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None


def directory(text: str) -> Path:
    """A directory that exists."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    return path


def writable_directory(text: str) -> Path:
    """A directory that accepts files. Creating a nameless file is the only test that covers
    permissions, read-only mounts and foreign file systems. A full disk is not an error here: the
    requests in the journal can still be finished."""
    path = directory(text)
    try:
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return path
        reason = f"cannot write to {text}: {error.strerror}; name a writable directory"
        raise argparse.ArgumentTypeError(reason) from None


def path(text: str) -> Path:
    """A path, not empty."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty; name a file or directory")
    return Path(text)


def model(text: str) -> str:
    """A model's name or path, not empty."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty; name a model or a file")
    return text
