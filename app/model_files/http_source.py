"""The first source of a model: a file by HTTP, from Hugging Face or a mirror of it.

`download` resumes an earlier download (`part_of` names its file), retries a broken transfer,
verifies the file, and only then renames it. Connections time out early, because a second source may
be waiting. Standard library only; blocks the caller's thread, apart from a daemon thread for the
look-up of a name.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from app.model_files.entry import CatalogError, Entry, Notify, Progress, SourceError
from app.model_files.verify import matches, settle

# Upstream's host; HF_ENDPOINT (huggingface_hub's variable) replaces it.
DEFAULT_ENDPOINT = "https://huggingface.co"

# A network that drops packets must fail while the user still watches. TCP repeats a lost first
# packet after 1, 3 and 7 s (RFC 6298), so 8 s allow for three losses.
CONNECT_SECONDS = 8.0
# Between two reads of a running download. Longer, because a proxy may scan the file first.
READ_SECONDS = 15.0
# Retries of a broken download without a single new byte in between.
RETRIES_WITHOUT_PROGRESS = 2
# Bytes of a read, and between two reports of progress. Large enough for a gigabit link.
CHUNK_BYTES = 1 << 18


def url_of(entry: Entry) -> str:
    """Return the URL of the entry; HF_ENDPOINT replaces the host. Raises CatalogError."""
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise CatalogError(f"HF_ENDPOINT is {endpoint!r}: it must begin with https:// or http://")
    try:
        urllib.parse.urlsplit(endpoint)
    except ValueError as error:
        raise CatalogError(f"HF_ENDPOINT is {endpoint!r}: {error}") from error
    return f"{endpoint}/ggerganov/whisper.cpp/resolve/main/{urllib.parse.quote(entry.file)}"


def download(entry: Entry, path: Path, progress: Progress | None, tell: Notify) -> None:
    """Fetch into `path`.part, resuming an earlier try; verify; rename."""
    url = url_of(entry)
    host = urllib.parse.urlsplit(url).netloc
    part = part_of(path)
    resumed = part.exists() and part.stat().st_size > 0
    tell(f"fetching {entry.file} from {host}" + (" (resuming)" if resumed else ""))
    try:
        _transfer(entry, url, part, progress)
        if not matches(entry, part):
            part.unlink()
            if not resumed:
                raise SourceError(
                    f"{entry.file} from {host} has the wrong size or hash and was deleted"
                )
            # The old part may have been of another file: once more, from the beginning.
            tell(f"{entry.file} has the wrong hash after resuming and was deleted; starting again")
            _transfer(entry, url, part, progress)
            if not matches(entry, part):
                part.unlink()
                raise SourceError(
                    f"{entry.file} from {host} has the wrong size or hash and was deleted"
                )
        settle(entry, part, path)
    except OSError as error:
        # Network errors are SourceError already, so this is an error of the disk.
        raise CatalogError(f"cannot write {part}: {error.strerror or error}") from error


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _transfer(entry: Entry, url: str, part: Path, progress: Progress | None) -> None:
    """Fetch from `url` until `part` is complete, retrying a broken transfer."""
    start = part.stat().st_size if part.exists() else 0
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(entry, url, part, progress)
            return
        except _NetworkError as error:
            after = part.stat().st_size if part.exists() else 0
            idle = 0 if after > before else idle + 1
            # A host that never sent a byte is not tried again: its failure took CONNECT_SECONDS,
            # and the next source, or a person, is waiting.
            if idle > (RETRIES_WITHOUT_PROGRESS if after > start else 0):
                kept = f" ({after >> 20} MiB are kept for the next try)" if after else ""
                raise SourceError(f"{_host(url)} failed: {error}{kept}") from error
            time.sleep(0.5 * idle)


class _NetworkError(Exception):
    """The connection failed, not the request."""


def _request(entry: Entry, url: str, part: Path, progress: Progress | None) -> None:
    """Send one HTTP request for the rest of `part`."""
    have = part.stat().st_size if part.exists() else 0
    if entry.size is not None and have > entry.size:
        part.unlink()
        have = 0
    if entry.size is not None and have == entry.size:
        return
    headers = {"User-Agent": "node-whisper", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _opener().open(
            urllib.request.Request(url, headers=headers), timeout=READ_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            # The server has no further bytes. Without a known size the hash decides whether the
            # part is complete.
            if entry.size is None:
                return
            part.unlink()
            raise _NetworkError("the file on the server is shorter than the part here") from error
        if error.code >= 500 or error.code == 429:
            raise _NetworkError(f"HTTP {error.code} {error.reason}") from error
        raise SourceError(f"{_host(url)} answered HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(_reason(error)) from error
    with response:
        if response.status != 206:
            have = 0  # the server ignored the range and sends the whole file
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if entry.size is not None and total not in (None, entry.size):
            raise SourceError(
                f"{_host(url)} offers {total} bytes for {entry.file}, not {entry.size}"
            )
        total = total if total is not None else entry.size
        with part.open("ab" if have else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                have += len(chunk)
                if entry.size is not None and have > entry.size:
                    raise SourceError(f"{_host(url)} sends more bytes than {entry.file} has")
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise _NetworkError("the connection ended early")


def _read(response: Any) -> bytes:
    try:
        data: bytes = response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(_reason(error)) from error
    return data


def _opener() -> urllib.request.OpenerDirector:
    """Return urllib's opener, with proxies and redirects as usual, but an early timeout."""

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(_connector(http.client.HTTPConnection), req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(_connector(http.client.HTTPSConnection), req)

    return urllib.request.build_opener(Plain, Secure)


def _connector(kind: Any) -> Any:
    def make(host: str, **options: Any) -> Any:
        connection = kind(host, **options)
        # http.client's own hook for making the TCP connection.
        connection._create_connection = _connect
        return connection

    return make


def _connect(
    address: tuple[str, int], timeout: float | None = None, source_address: Any = None
) -> socket.socket:
    """Like socket.create_connection, but within CONNECT_SECONDS in all. That function allows the
    timeout once for each of a host's addresses, and has none for the look-up."""
    deadline = time.monotonic() + CONNECT_SECONDS
    found = _look_up(address, CONNECT_SECONDS)
    failure: OSError = TimeoutError(f"{address[0]} does not answer")
    for index, (family, kind, protocol, _, where) in enumerate(found):
        # Each address gets an even share of the remaining time, and at least a second.
        share = max(1.0, (deadline - time.monotonic()) / (len(found) - index))
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(share)
            connection.connect(where)
        except OSError as error:
            connection.close()
            failure = error
            if time.monotonic() > deadline:
                break
            continue
        connection.settimeout(timeout)
        return connection
    raise failure


def _look_up(address: tuple[str, int], seconds: float) -> list[Any]:
    """Call getaddrinfo with a timeout: without a network a resolver takes up to 30 s (5 s, twice,
    for each of three servers: resolv.conf(5)). The thread is a daemon and ends by itself."""
    result: list[Any] = []

    def resolve() -> None:
        try:
            result.append(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: no valid host name
            result.append(error if isinstance(error, OSError) else OSError(str(error)))

    thread = threading.Thread(target=resolve, daemon=True, name="resolve")
    thread.start()
    thread.join(seconds)
    if not result:
        raise TimeoutError(f"looking up {address[0]} took more than {seconds:g} s")
    if isinstance(result[0], OSError):
        raise result[0]
    found: list[Any] = result[0]
    return found


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    cause = inner if isinstance(inner, BaseException) else error
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__
