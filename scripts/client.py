#!/usr/bin/env python3
"""Sends audio to a node-whisper node and prints the text: files, or speech while it is spoken.

One file that needs only Python 3.8 or newer: copy it to any machine that can reach the node.

    client.py recording.flac                       the text
    client.py --srt talk.mp3 > talk.srt            subtitles
    client.py --json --parallel 4 *.wav            one JSON object a line, in the files' order
    client.py --output-dir texts --format txt,srt recordings/
    client.py --host node.lan --ca ca.pem --token-file token talk.mp3
    arecord -q -f S16_LE -r 16000 -d 5 | client.py -
    arecord -q -t raw -f S16_LE -r 16000 | client.py --live -

Each file takes one connection: a 16-bit big-endian length, a JSON header, the bytes. The reply has
the same framing. Live audio follows its header in frames: a 16-bit length and that many bytes, with
the length 0 at the end. docs/protocol.md in node-whisper's repository describes the protocol.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
import unicodedata

CHUNK = 64 * 1024
MIB = 1024 * 1024
# A smaller upload ends before anyone could read a progress line.
PROGRESS_FROM = 4 * MIB
CONNECT_SECONDS = 10
# Players skip a cue without length, which a short word may have.
CUE_SECONDS = 0.1
LINE_WIDTH = 42
RAW_SUFFIXES = (".pcm", ".raw")
RAW_ENCODINGS = ("s16", "s24", "s32", "f32", "u8", "ulaw", "alaw", "gsm", "g722")
# Files of telephone systems, as Asterisk names them: samples without a header, in one channel.
TELEPHONY = {".gsm": ("gsm", 8000), ".g722": ("g722", 16000), ".sln": ("s16", 8000)}
TELEPHONY.update({f".sln{khz}": ("s16", khz * 1000) for khz in (12, 16, 24, 32, 48, 96, 192)})
TELEPHONY[".sln44"] = ("s16", 44100)
TELEPHONY.update(dict.fromkeys((".ulaw", ".ul", ".ulw", ".mulaw", ".pcmu"), ("ulaw", 8000)))
TELEPHONY.update(dict.fromkeys((".alaw", ".al", ".alw", ".pcma"), ("alaw", 8000)))
TELEPHONY_RATES = {"ulaw": 8000, "alaw": 8000, "gsm": 8000, "g722": 16000}
# The format of live samples on stdin, unless options say otherwise: that of Whisper.
LIVE_FORMAT = ("s16", 16000, 1)
# A file is played in pieces of this length, and a larger piece of stdin takes several frames.
LIVE_SECONDS = 0.02
LIVE_FRAME = 32 * 1024
# Audio read from the source and not yet sent, beyond which the source is not read.
LIVE_AHEAD = 256 * 1024
SAMPLE_BYTES = {"s16": 2, "s24": 3, "s32": 4, "f32": 4, "u8": 1, "ulaw": 1, "alaw": 1}
# The others have no whole bytes a sample: bytes of the smallest unit, and samples in it.
UNITS = {"gsm": (33, 160), "g722": (1, 2)}
# The text of each recording in a file, with --output-dir.
FORMATS = ("txt", "srt", "vtt", "json")
# Files of a folder that are sent: sound, and videos with sound.
SOUND = re.compile(
    r"\.(3gp|aac|aif[cf]?|amr|au|avi|caf|flac|m4[abv]|mk[av]|mov|mp[234]|mpga|og[ag]|opus|snd|spx"
    r"|w64|wave?|web[am]|wm[av])"
)
TLS_HINT = "; if it uses TLS, add --tls"
TOKEN_VARIABLE = "NODE_WHISPER_TOKEN"


class Failed(Exception):
    """A file received no transcript; the message is a sentence for the user."""


class Progress:
    """Shows the progress of large uploads in one line on a terminal's stderr."""

    def __init__(self):
        self.shown = sys.stderr.isatty()
        self.lock = threading.Lock()
        self.uploads = {}
        self.width = 0
        self.next = 0.0

    def update(self, key, name, sent, size):
        if not self.shown or size < PROGRESS_FROM:
            return
        with self.lock:
            self.uploads[key] = (sent, size)
            if sent < size and time.monotonic() < self.next:
                return
            self.next = time.monotonic() + 0.2
            done = sum(sent for sent, _ in self.uploads.values())
            total = sum(size for _, size in self.uploads.values())
            what = name if len(self.uploads) == 1 else f"{len(self.uploads)} files"
            percent = f"{100 * done // total} %" if done < total else "all; waiting for the reply"
            self._draw(f"{what}: sent {done / MIB:.1f} of {total / MIB:.1f} MiB ({percent})")

    def finish(self, key):
        with self.lock:
            self.uploads.pop(key, None)

    def erase(self, timeout=-1):
        """Erases the line before other output; an active upload draws it again."""
        if self.lock.acquire(timeout=timeout):
            try:
                if self.width:
                    self._draw("")
            finally:
                self.lock.release()

    def _draw(self, line):
        sys.stderr.write("\r" + line.ljust(self.width) + ("" if line else "\r"))
        sys.stderr.flush()
        self.width = len(line)


def open_source(name):
    """Opens a file and returns it with its size; a stream (stdin, a pipe) is first copied to disk.

    The protocol declares the length before the first byte, so a stream must end before it is sent.
    """
    if name == "-" and sys.stdin is None:
        raise Failed("cannot be read: stdin is closed")
    try:
        source = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise Failed(f"cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(source.fileno())
        if stat.S_ISREG(status.st_mode):
            return source, status.st_size - source.tell()
        spool = tempfile.SpooledTemporaryFile(max_size=8 * MIB)  # noqa: SIM115
        with source:
            shutil.copyfileobj(source, spool, CHUNK)
        size = spool.tell()
        spool.seek(0)
    except OSError as error:
        raise Failed(f"cannot be read: {error.strerror}") from None
    return spool, size


def is_raw(name, options):
    is_named = suffix(name) in RAW_SUFFIXES or suffix(name) in TELEPHONY
    return is_named or (name == "-" and options.encoding is not None)


def suffix(name):
    return os.path.splitext(name)[1].lower()


def raw_format(name, options):
    """Returns encoding, sampling rate and channels of raw samples, None for each that is unknown.

    A file of a telephone system and an encoding of telephony have usual values for the others.
    """
    encoding, rate = TELEPHONY.get(suffix(name), (None, None))
    if options.encoding not in (None, encoding):
        encoding, rate = options.encoding, TELEPHONY_RATES.get(options.encoding)
    channels = options.channels or (1 if rate else None)
    return encoding, options.sample_rate or rate, channels


def raw_seconds(header):
    """Returns the seconds of raw samples that a header describes."""
    encoding = header["content-encoding"]
    size, count = UNITS.get(encoding) or (SAMPLE_BYTES[encoding] * header["channels"], 1)
    return header["content-length"] * count / size / header["sample-rate"]


def header_fields(name, size, options):
    """Returns the fields that describe the file and the request; scripts/queue sends them, too."""
    if is_raw(name, options):
        found = raw_format(name, options)
        flags = ("--encoding", "--sample-rate", "--channels")
        missing = [flag for flag, value in zip(flags, found) if value is None]
        if missing:
            raise Failed(f"holds raw samples of unknown format: add {' and '.join(missing)}")
        header = {
            "content-type": "audio/pcm",
            "content-encoding": found[0],
            "sample-rate": found[1],
            "channels": found[2],
        }
    else:
        # The node recognises the format by the bytes; the label is for people who read a capture.
        label = os.path.splitext(name)[1][1:].lower() or "binary"
        header = {"content-type": "binary/" + label, "content-encoding": label}
    header.update({"byteorder": sys.byteorder, "content-length": size})
    header.update(option_fields(options))
    return header


def option_fields(options):
    """Returns the fields that do not depend on the audio's format."""
    header = {}
    for field in ("language", "task", "prompt"):
        value = getattr(options, field)
        if value is not None:
            header[field] = value
    if options.languages:
        header["languages"] = options.languages
    if options.split_channels:
        header["channel-mode"] = "split"
    if options.words:
        header["word-timestamps"] = True
    header.update(cue_fields(options))
    return header


def cue_fields(options):
    """Returns the fields for the size of cues: for subtitles always, with --json where given."""
    sizes = {
        "max-line-width": options.max_line_width,
        "max-line-count": options.max_line_count,
        "max-cue-seconds": options.max_cue_seconds,
    }
    given = {field: value for field, value in sizes.items() if value is not None}
    if (options.srt or options.vtt) and not options.words:
        # The fields have a node divide its segments; it has defaults for the others.
        given.setdefault("max-line-width", LINE_WIDTH)
    return given


def make_header(name, size, options):
    header = header_fields(name, size, options)
    if options.fire_and_forget:
        header["reply"] = "accepted"
    return encode_header(header, options)


def encode_header(header, options):
    header["connection"] = "close"
    if options.token is not None:
        header["token"] = options.token
    encoded = json.dumps(header).encode("utf-8")
    if len(encoded) > 0xFFFF:
        raise Failed("the header exceeds 65535 bytes: shorten --prompt")
    return struct.pack("!H", len(encoded)) + encoded


def connect(options):
    try:
        connection = socket.create_connection((options.host, options.port), CONNECT_SECONDS)
    except socket.gaierror:
        raise Failed(f"unknown host {options.host}: check --host") from None
    except ConnectionRefusedError:
        raise Failed(
            f"nothing listens on {options.host} port {options.port}: start the node there "
            "(scripts/run), or give its address with --host and --port"
        ) from None
    except (OSError, UnicodeError) as error:
        raise Failed(
            f"cannot reach {options.host} port {options.port} "
            f"({getattr(error, 'strerror', None) or error}): check --host, --port and any firewall"
        ) from None
    # The reply has no deadline, because a long recording may wait for hours. Keep-alive probes
    # detect a node without power within about three minutes.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if options.context is not None:
        connection = encrypt(connection, options)
    connection.setblocking(False)
    return connection


def make_context(options):
    """Returns the TLS context for the options, or None. Raises OSError for an unusable file."""
    if not (options.tls or options.ca or options.cert):
        return None
    # Imported only here: it takes time and memory, and Python on some small systems lacks it.
    import ssl

    context = ssl.create_default_context(cafile=options.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    return context


def encrypt(connection, options):
    import ssl

    where = f"{options.host} port {options.port}"
    try:
        return options.context.wrap_socket(connection, server_hostname=options.host)
    except ssl.SSLCertVerificationError as error:
        reason = (
            f"the certificate of {where} is not valid ({error.verify_message}): "
            "give its authority with --ca, and use the certificate's host name with --host"
        )
    except ssl.SSLError as error:
        reason = f"no TLS with {where} ({error.reason or error}): {advice(error)}"
    except (OSError, ValueError) as error:
        reason = (
            f"no TLS with {where} ({getattr(error, 'strerror', None) or error}): "
            "check --port, and that the node runs with --tls-cert"
        )
    connection.close()
    raise Failed(reason)


def advice(error):
    reason = error.reason or ""
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return "the node requires a client certificate: give --cert and --key"
    if "UNKNOWN_CA" in reason or "BAD_CERTIFICATE" in reason or "CERTIFICATE_EXPIRED" in reason:
        return "the node rejects the certificate of --cert"
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return "the port may not use TLS: remove --tls, or check --port"
    return "see the node's log at debug level (--log-verbose)"


def must_wait(error):
    """Returns whether a non-blocking socket, plain or TLS, is not ready yet."""
    tls = sys.modules.get("ssl")
    return isinstance(error, BlockingIOError) or (
        tls is not None and isinstance(error, (tls.SSLWantReadError, tls.SSLWantWriteError))
    )


def parse_message(received):
    """Returns the JSON object of the first complete message in `received` and the message's size.

    Returns None if no message is complete. Raises ValueError, TypeError or KeyError if the bytes do
    not come from a node.
    """
    if len(received) < 3:
        return None
    if received[:2] == b"\x15\x03":
        # A TLS alert: the peer did not understand the plain bytes.
        raise Failed("the port uses TLS: add --tls, and --ca for a private authority")
    if received[2:3] != b"{":
        raise ValueError
    (length,) = struct.unpack_from("!H", received)
    if len(received) < 2 + length:
        return None
    size = json.loads(received[2 : 2 + length].decode("utf-8"))["content-length"]
    end = 2 + length + size
    if len(received) < end:
        return None
    return json.loads(received[2 + length : end].decode("utf-8")), end


def parse_reply(received):
    """Returns the reply to a file as `parse_message` does, without its size."""
    message = parse_message(received)
    if message is None:
        return None
    reply, _ = message
    needed = {"ok": ("text", "segments"), "accepted": ("id",), "error": ("error",)}
    for field in needed[reply["status"]]:
        reply[field]
    return reply


def exchange(connection, header, source, size, on_sent):
    """Sends header and body and returns the reply, which may come before all is sent.

    Reading and writing alternate, because a node that rejects a message replies at the header and
    then closes. A client that only writes would see a broken pipe instead of the reason.
    """
    pending, left = memoryview(header), size
    received = bytearray()
    lost = None
    while True:
        if not pending and left and not lost:
            block = source.read(min(CHUNK, left))
            if not block:
                raise Failed(
                    "the file became shorter during the upload: send it again once it is complete"
                )
            left -= len(block)
            pending = memoryview(block)
        writers = [connection] if pending and not lost else []
        # select() does not see bytes that TLS has already decrypted.
        waiting = hasattr(connection, "pending") and connection.pending()
        readable, writable, _ = select.select([connection], writers, [], 0 if waiting else None)
        if readable or waiting:
            try:
                block = connection.recv(CHUNK)
            except OSError as error:
                if must_wait(error):
                    continue
                block, lost = b"", error
            received += block
            try:
                reply = parse_reply(received)
            except (ValueError, TypeError, KeyError):
                raise Failed(
                    "the peer is not a node-whisper node: check --host and --port"
                ) from None
            if reply is not None:
                return reply
            if not block and hasattr(lost, "reason"):
                # With TLS 1.3 a client learns only now that its certificate was rejected.
                raise Failed(f"the node ended TLS ({lost.reason}): {advice(lost)}")
            if not block:
                how = "in the middle of its reply" if received else "without a reply"
                hint = "" if received or hasattr(connection, "pending") else TLS_HINT
                raise Failed(f"the node closed the connection {how}: see its log{hint}")
        elif writable:
            try:
                pending = pending[connection.send(pending) :]
            except OSError as error:
                if must_wait(error):
                    continue
                # The node accepts no more bytes, but its reply may be waiting.
                lost = error
            on_sent(size - left - len(pending))


def transcribe(key, name, options, progress, connections):
    if os.path.isdir(name):
        raise Failed("is a folder: add --output-dir for the texts of the files in it")
    source, size = open_source(name)
    with source:
        header = make_header(name, size, options)
        with connect(options) as connection:
            connections.append(connection)
            try:
                return exchange(
                    connection,
                    header,
                    source,
                    size,
                    lambda sent: progress.update(key, name, sent, size),
                )
            except OSError as error:
                raise Failed(f"cannot be read: {error.strerror}") from None
            finally:
                progress.finish(key)
                connections.remove(connection)


def timestamp(seconds, separator):
    minutes, milliseconds = divmod(max(0, round(seconds * 1000)), 60000)
    hours, minutes = divmod(minutes, 60)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{milliseconds:03d}"


def cues(reply, words):
    """Yields start, end, text and channel of each cue: the segments, or their words."""
    for segment in reply["segments"]:
        for piece in segment.get("words") or [] if words else [segment]:
            # An empty line would end the cue.
            lines = (" ".join(line.split()) for line in piece.get("lines") or [piece["text"]])
            text = "\n".join(filter(None, lines))
            if text:
                yield piece["start"], piece["end"], text, segment.get("channel")


def render(name, reply, options):
    """Returns the output for one file, line breaks included."""
    if options.json:
        return json.dumps(dict({"file": name}, **reply), ensure_ascii=False) + "\n"
    if reply["status"] == "accepted":
        return f"accepted {reply['id']}\n"
    is_split = any("channel" in segment for segment in reply["segments"])
    lines = ["WEBVTT\n\n"] if options.vtt else []
    if options.srt or options.vtt or options.words or is_split:
        numbered = enumerate(cues(reply, options.words), 1)
        lines += [render_cue(number, cue, options) for number, cue in numbered]
    else:
        lines.append(reply["text"].strip() + "\n")
    return "".join(lines)


def render_cue(number, cue, options):
    """Returns one cue in the form that the options name, line breaks included."""
    start, end, text, channel = cue
    if (options.srt or options.vtt) and end <= start:
        end = start + CUE_SECONDS
    speaker = "" if channel is None else f"Channel {channel}"
    if options.srt:
        text = f"{speaker}: {text}" if speaker else text
        return f"{number}\n{timestamp(start, ',')} --> {timestamp(end, ',')}\n{text}\n\n"
    if options.vtt:
        # & < > are markup in WebVTT.
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        text = f"<v {speaker}>{text}" if speaker else text
        return f"{timestamp(start, '.')} --> {timestamp(end, '.')}\n{text}\n\n"
    if options.words:
        who = "" if channel is None else f"\t{channel}"
        return f"{start:.2f}\t{end:.2f}\t{text}{who}\n"
    return f"{speaker}: {text}\n" if speaker else f"{text}\n"


def explain(reply):
    """Returns an error reply as one line."""
    error = reply["error"]
    line = f"{error.get('code')}: {error.get('message')}"
    wait = error.get("retry_after_seconds")
    return line if wait is None else f"{line} (retry in {wait:g} s)"


class Source:
    """A file to send. `name` is its path, `place` its path below the folder that was named, or its
    own name, and `folder` the name of the folder that `place` is in."""

    def __init__(self, name, place, folder):
        self.name = name
        self.place = place
        self.folder = folder

    def outputs(self):
        """Returns paths for its text, without a suffix: the plain one, then more distinct ones."""
        whole = os.path.join(self.folder, self.place)
        return os.path.splitext(self.place)[0], self.place, whole


def find_sources(names, is_sent):
    """Returns the files to send: those that were named, and of folders those that `is_sent`."""
    found = []
    for name in names:
        if name == "-":
            found.append(Source(name, "stdin", ""))
        elif os.path.isdir(name):
            below = list(walk(name, is_sent))
            if not below:
                raise ValueError(f"{name} holds no audio files")
            folder = os.path.basename(os.path.abspath(name))
            found += [Source(path, os.path.relpath(path, name), folder) for path in below]
        else:
            folder, place = os.path.split(os.path.abspath(name))
            found.append(Source(name, place, os.path.basename(folder)))
    # A file may be named twice, by itself and by its folder.
    distinct = {os.path.realpath(one.name) if one.name != "-" else "-": one for one in found[::-1]}
    return list(distinct.values())[::-1]


def walk(folder, is_sent):
    """Yields the files below a folder that are not hidden and that `is_sent`, in order."""

    def refuse(error):
        raise error

    for path, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and is_sent(name):
                yield os.path.join(path, name)


def output_names(sources, folder):
    """Returns the path of each source's text without its suffix: `folder/talk` for `talk.mp3`.

    Sources that would share a path all get a longer one, whatever their order, and so does one
    whose text would replace a file that is sent.
    """
    sent = {key_of(source.name) for source in sources}
    choices = [source.outputs() for source in sources]
    levels = [0] * len(sources)
    names = []
    for _ in choices[0]:
        names = [os.path.join(folder, choice[level]) for choice, level in zip(choices, levels)]
        counts = collections.Counter(map(key_of, names))
        crowded = [
            index
            for index, name in enumerate(names)
            if counts[key_of(name)] > 1 or any(key_of(f"{name}.{form}") in sent for form in FORMATS)
        ]
        if not crowded:
            return names
        for index in crowded:
            levels[index] = min(levels[index] + 1, len(choices[index]) - 1)
    taken = set()
    for index, name in enumerate(names):
        number = 1
        while key_of(names[index]) in taken:
            number += 1
            names[index] = f"{name} ({number})"
        taken.add(key_of(names[index]))
    return names


def key_of(path):
    """Returns the same key for paths that are the same file on some file systems."""
    return unicodedata.normalize("NFC", os.path.abspath(path)).casefold()


def write_file(path, text, overwrite):
    """Writes a file as a whole or not at all; returns False if it exists and must stay."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".client-{os.urandom(8).hex()}")
    try:
        with open(temporary, "x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return publish(temporary, path, overwrite)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def publish(temporary, path, overwrite):
    """Gives a written file its name."""
    if not overwrite:
        try:
            os.link(temporary, path)
            return True
        except FileExistsError:
            return False
        except OSError:
            # This file system has no links.
            if os.path.lexists(path):
                return False
    os.replace(temporary, path)
    return True


def whole_number(low, high):
    def parse(text):
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not within {low} to {high}")
        return value

    parse.__name__ = "number"
    return parse


def cue_seconds(text):
    value = float(text)
    if not 0.5 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{value:g} is not within 0.5 to 3600")
    return value


def language_list(text):
    codes = [code.strip() for code in text.split(",")]
    if not all(codes):
        raise argparse.ArgumentTypeError("give codes separated by commas, such as en,de")
    return codes


def add_request_options(parser):
    """Adds the options that describe the audio and the request; scripts/queue has them, too."""
    parser.add_argument(
        "--language",
        help="spoken language, such as en; auto detects it once, multi in every part of a "
        "recording; default: the node's",
    )
    parser.add_argument(
        "--languages",
        type=language_list,
        metavar="CODES",
        help="languages that detection chooses from, such as en,de; default: the node's",
    )
    parser.add_argument(
        "--task", choices=("transcribe", "translate"), help="translate returns English text"
    )
    parser.add_argument(
        "--split-channels",
        action="store_true",
        help="transcribe each channel by itself, for recordings of calls; the output names it",
    )
    parser.add_argument("--prompt", help="names and spellings to expect")
    sizes = parser.add_argument_group("size of subtitle cues, and with --json of segments")
    sizes.add_argument(
        "--max-line-width",
        type=whole_number(0, 1000),
        metavar="N",
        help=f"columns of a line ({LINE_WIDTH} for subtitles); a wide character takes two; 0 keeps "
        "the segments whole",
    )
    sizes.add_argument(
        "--max-line-count", type=whole_number(1, 100), metavar="N", help="lines of a cue (2)"
    )
    sizes.add_argument(
        "--max-cue-seconds", type=cue_seconds, metavar="S", help="seconds of a cue (7)"
    )
    raw = parser.add_argument_group(
        "raw samples (.pcm, .raw and telephony files, and stdin with these options)",
        "Telephony files need none of these options: .ulaw, .alaw, .gsm, .g722, .sln to .sln192.",
    )
    raw.add_argument(
        "--encoding",
        choices=RAW_ENCODINGS,
        help="encoding of a sample; ulaw, alaw, gsm and g722 need no further option",
    )
    raw.add_argument(
        "--sample-rate", type=whole_number(1, 10**6), metavar="HZ", help="samples a second"
    )
    raw.add_argument(
        "--channels", type=whole_number(1, 1024), metavar="N", help="number of channels"
    )


def check_raw_options(parser, options):
    if (options.encoding or options.sample_rate or options.channels) and not any(
        is_raw(name, options) for name in options.files
    ):
        parser.error(
            "--encoding, --sample-rate and --channels are for .pcm, .raw and telephony files, "
            "or for - with --encoding"
        )


def add_output_options(parser):
    """Adds the options of `render`; scripts/queue has them, too."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print each reply as one JSON object a line"
    )
    form.add_argument("--srt", action="store_true", help="print SubRip subtitles")
    form.add_argument("--vtt", action="store_true", help="print WebVTT subtitles")
    parser.add_argument(
        "--words",
        action="store_true",
        help="print each word with its start and end; with subtitles, one word per cue; with "
        "--json, words in each segment",
    )


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description="Send audio files, or live audio, to a node-whisper node and print the text.",
        epilog="Exit status: 0 if every file was transcribed (or accepted), 1 if any failed, "
        "2 for invalid arguments.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="audio file; - reads stdin; with --output-dir also a folder, with all audio below it",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="send audio while it is spoken and print each text as it becomes final; a terminal "
        "also shows the words before that. - reads a WAV or raw samples (16 bits, 16000 Hz and one "
        "channel unless the options for raw samples say otherwise) from stdin; a WAV or raw FILE "
        "is sent at the speed of speech. Ctrl-C ends the audio",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the node (%(default)s)")
    parser.add_argument(
        "--port", type=whole_number(1, 65535), default=56789, help="port of the node (%(default)s)"
    )
    tls = parser.add_argument_group("encryption and access")
    tls.add_argument("--tls", action="store_true", help="use TLS; implied by --ca and --cert")
    tls.add_argument(
        "--ca",
        metavar="FILE",
        help="PEM file of the node's certificate authority; default: the system's",
    )
    tls.add_argument("--cert", metavar="FILE", help="PEM file of a client certificate")
    tls.add_argument("--key", metavar="FILE", help="PEM file of its key, if not in the same file")
    tls.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file whose first line is the node's token; default: the variable {TOKEN_VARIABLE}",
    )
    add_request_options(parser)
    add_output_options(parser)
    files = parser.add_argument_group("files with the texts")
    files.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write the text of talk.mp3 to DIR/talk.txt, and so on, and print the names. Folders "
        "inside of a folder are kept. A recording whose texts exist already is not sent again",
    )
    files.add_argument(
        "--format",
        type=format_list,
        dest="formats",
        metavar="LIST",
        help=f"formats of the files: {', '.join(FORMATS)}, or several with commas (txt)",
    )
    files.add_argument("--overwrite", action="store_true", help="replace files that exist in DIR")
    parser.add_argument(
        "--fire-and-forget",
        action="store_true",
        help="wait only until the node has accepted the file; its text goes to the node's stdout",
    )
    parser.add_argument(
        "--parallel",
        type=whole_number(1, 256),
        default=1,
        metavar="N",
        help="send up to N files at once (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.files.count("-") > 1:
        parser.error("- (stdin) can be read only once")
    if options.output_dir is not None:
        prepare_output(parser, options)
    elif options.formats or options.overwrite:
        parser.error("--format and --overwrite need --output-dir")
    elif (options.srt or options.vtt) and len(options.files) > 1:
        parser.error("--srt and --vtt take one FILE: add --output-dir for several")
    sizes = (options.max_line_width, options.max_line_count, options.max_cue_seconds)
    one_word = options.words and not options.json
    if sizes != (None, None, None) and (
        one_word or not (options.srt or options.vtt or options.json)
    ):
        parser.error(
            "--max-line-width, --max-line-count and --max-cue-seconds are for --srt and --vtt "
            "without --words, and for --json"
        )
    if options.fire_and_forget and (options.srt or options.vtt):
        parser.error("--fire-and-forget prints no text: remove --srt and --vtt")
    if not options.live:
        check_raw_options(parser, options)
    elif len(options.files) > 1:
        parser.error("--live takes one FILE")
    elif options.fire_and_forget or options.split_channels:
        parser.error("--live goes without --fire-and-forget and --split-channels")
    if options.key and not options.cert:
        parser.error("--key needs its certificate: add --cert")
    try:
        options.context = make_context(options)
    except (OSError, ImportError) as error:
        files = ", ".join(filter(None, (options.ca, options.cert, options.key)))
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        parser.error(f"no TLS with {files or 'this Python'}: {reason}")
    try:
        options.token = read_token(options.token_file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        parser.error(f"--token-file {options.token_file}: {reason}")
    return options


def format_list(text):
    forms = [form.strip() for form in text.split(",")]
    for form in forms:
        if form not in FORMATS:
            raise argparse.ArgumentTypeError(f"{form!r} is not one of {', '.join(FORMATS)}")
    return list(dict.fromkeys(forms))


def prepare_output(parser, options):
    """Finds the files to send and makes the folder of the texts."""
    if options.live or options.fire_and_forget:
        parser.error("--output-dir does not go with --live or --fire-and-forget: leave one out")
    shown = [form for form in FORMATS[1:] if getattr(options, form)]
    if options.formats and shown:
        parser.error(f"--format replaces --{shown[0]}: give only one of them")
    options.formats = options.formats or shown or ["txt"]
    # The fields of a request depend on these options.
    for form in FORMATS[1:]:
        setattr(options, form, form in options.formats)

    def is_sent(name):
        kind = suffix(name)
        return (
            SOUND.fullmatch(kind)
            or kind in TELEPHONY
            or (kind in RAW_SUFFIXES and options.encoding)
        )

    try:
        options.sources = find_sources(options.files, is_sent)
        os.makedirs(options.output_dir, exist_ok=True)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    options.files = [source.name for source in options.sources]
    options.outputs = output_names(options.sources, options.output_dir)


def read_token(name):
    if name is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    with open(name, encoding="ascii") as file:
        token = file.readline(4096).strip()
    if not token:
        raise ValueError("the first line is empty")
    return token


def leave(code):
    """Ends the process at once: a thread may be blocked on stdin, which nothing can interrupt."""
    sys.stderr.flush()
    os._exit(code)


class Saved:
    """The files with the text of one source: the new ones, and those that existed already."""

    def __init__(self, new, kept, truncated=False):
        self.new = new
        self.kept = kept
        self.truncated = truncated


def save(index, options, send):
    """Writes the text of a source in each format. `send` returns the node's reply, and is not
    called if all files exist. Returns `Saved`, or the reply if it is an error."""
    base = options.outputs[index]
    kept = []
    if not options.overwrite:
        kept = [form for form in options.formats if os.path.lexists(f"{base}.{form}")]
    new = [form for form in options.formats if form not in kept]
    truncated = False
    if new:
        reply = send()
        if reply["status"] != "ok":
            return reply
        truncated = bool(reply.get("truncated"))
    for form in list(new):
        path = f"{base}.{form}"
        only = {other: other == form for other in FORMATS[1:]}
        text = render(options.files[index], reply, argparse.Namespace(**{**vars(options), **only}))
        try:
            if not write_file(path, text, options.overwrite):
                # Another program has made it meanwhile.
                new.remove(form)
                kept.append(form)
        except OSError as error:
            raise Failed(f"{path} cannot be written: {error.strerror}") from None
    return Saved([f"{base}.{form}" for form in new], [f"{base}.{form}" for form in kept], truncated)


def run(options, progress, connections):
    results = [None] * len(options.files)
    ready = [threading.Event() for _ in options.files]
    todo = iter(range(len(options.files)))
    lock = threading.Lock()

    def send(index):
        return transcribe(index, options.files[index], options, progress, connections)

    def work():
        while True:
            with lock:
                index = next(todo, None)
            if index is None:
                return
            try:
                if options.output_dir is None:
                    results[index] = send(index)
                else:
                    # Here, so that a text is safe although earlier files are still being sent.
                    results[index] = save(index, options, lambda index=index: send(index))
            except Failed as failure:
                results[index] = failure
            except BaseException:
                results[index] = Failed("a fault in client.py, see above")
                raise
            finally:
                ready[index].set()

    failed, saved = [], []
    try:
        for _ in range(min(options.parallel, len(options.files))):
            threading.Thread(target=work, daemon=True).start()
        for index, name in enumerate(options.files):
            ready[index].wait()
            progress.erase()
            result, results[index] = results[index], None
            label = "stdin" if name == "-" else name
            truncated = False
            if isinstance(result, Saved):
                saved.append(result)
                truncated = result.truncated
                write("".join(f"{path}\n" for path in result.new))
                for path in result.kept:
                    print(f"{label}: {path} exists; --overwrite replaces it", file=sys.stderr)
            elif isinstance(result, dict) and result["status"] in ("ok", "accepted"):
                write(render(name, result, options))
                truncated = result.get("truncated")
            else:
                reason = explain(result) if isinstance(result, dict) else result
                failed.append(f"{label}: {reason}")
                print(failed[-1], file=sys.stderr)
            if truncated:
                print(
                    f"{label}: the file is truncated; the text covers the readable part",
                    file=sys.stderr,
                )
    except BrokenPipeError:
        # The reader of our output, such as head, has closed it.
        leave(1)
    if options.output_dir is not None and len(options.files) > 1:
        print(summary(saved, failed), file=sys.stderr)
    return 1 if failed else 0


def summary(saved, failed):
    """Returns the counts of a run with --output-dir, and the files that failed once more."""
    new, kept = (sum(len(getattr(one, kind)) for one in saved) for kind in ("new", "kept"))
    lines = [
        f"client.py: files written: {new}, kept: {kept}; recordings that failed: {len(failed)}"
    ]
    return "\n".join(lines + [f"  {line}" for line in failed])


class LiveSource(threading.Thread):
    """Reads live audio on a thread, because nothing can wait for a file and a socket at once.

    `read` returns the next bytes, and none at the end. With `seconds_of`, which returns the length
    of so many bytes, the audio is played at its own speed. `wake` is a socket that becomes readable
    when `take` has something.
    """

    def __init__(self, read, seconds_of):
        super().__init__(daemon=True)
        self.read = read
        self.seconds_of = seconds_of
        self.wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._lock = threading.Condition()
        self._blocks = collections.deque()
        self._size = 0
        self._ended = False
        self.error = None

    def run(self):
        started, played = time.monotonic(), 0.0
        try:
            while True:
                block = self.read()
                if self.seconds_of is not None:
                    # Each piece is sent at the time of its last sample, which delays do not move.
                    played += self.seconds_of(len(block))
                    time.sleep(max(0.0, started + played - time.monotonic()))
                if not self._put(block):
                    return
        except (OSError, ValueError) as error:
            self.error = error
            self.end()

    def end(self):
        """Ends the audio; also called when the user interrupts."""
        self._ended = True
        self._notify()

    def close(self):
        """Ends reading. A thread that waits for stdin stays, because nothing can interrupt it."""
        self.end()
        with self._lock:
            self._lock.notify()
        if self.seconds_of is not None and self.ident is not None:
            self.join()
        self.wake.close()
        self._waker.close()

    def take(self):
        """Returns the next block, or b"" at the end of the audio, or None if there is neither."""
        with self._lock:
            if self._blocks:
                block = self._blocks.popleft()
                self._size -= len(block)
                self._lock.notify()
                return block
        return b"" if self._ended else None

    def _put(self, block):
        if not block or self._ended:
            self.end()
            return False
        with self._lock:
            while self._size > LIVE_AHEAD and not self._ended:
                self._lock.wait()
            self._blocks.append(block)
            self._size += len(block)
        self._notify()
        return True

    def _notify(self):
        # It may be closed already, or full of earlier notices.
        with contextlib.suppress(OSError):
            self._waker.send(b"x")


def read_exactly(source, count):
    """Returns `count` bytes of an unbuffered file, or fewer at its end."""
    data = b""
    while len(data) < count:
        block = source.read(count - len(data))
        if not block:
            break
        data += block
    return data


def read_wav_header(source):
    """Returns the format of a WAV file whose first 4 bytes were read, and the bytes of its samples.

    The file is then at its first sample. The number of bytes is None if the header was written
    before the samples, as programs do that write into a pipe.
    """
    encodings = {(1, 8): "u8", (1, 16): "s16", (1, 24): "s24", (1, 32): "s32", (3, 32): "f32"}
    if read_exactly(source, 8)[4:] != b"WAVE":
        raise Failed("is not a WAV file, although it begins like one")
    found = None
    while True:
        head = read_exactly(source, 8)
        if len(head) < 8:
            raise Failed("is a WAV file without samples")
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data":
            break
        data = read_exactly(source, size + size % 2)
        if kind == b"fmt " and len(data) >= 16:
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data)
            if tag == 0xFFFE and len(data) >= 26:
                (tag,) = struct.unpack_from("<H", data, 24)
            found = encodings.get((tag, bits)), rate, channels
    if found is None or found[0] is None:
        raise Failed("is a WAV file of a kind that --live cannot play: convert it to 16 bits")
    return found, None if size == 0 or size >= 0x7FFF0000 else size


def open_live(name):
    """Opens live audio. The file is unbuffered: a thread that waits in a buffered one could not be
    left at the end."""
    if name == "-" and sys.stdin is None:
        raise Failed("cannot be read: stdin is closed")
    try:
        if name == "-":
            return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
        return open(name, "rb", buffering=0)
    except OSError as error:
        raise Failed(f"cannot be opened: {error.strerror}") from None


def live_format(file, name, options):
    """Returns the format of live audio, its byte order, the bytes that were read to find it, and
    the number of bytes of its samples or None."""
    given = (options.encoding, options.sample_rate, options.channels)
    if any(given) or is_raw(name, options):
        found = raw_format(name, options)
        if name != "-" and not all(found):
            raise Failed("holds raw samples: add --encoding, --sample-rate and --channels")
        chosen = tuple(mine or usual for mine, usual in zip(found, LIVE_FORMAT))
        if chosen[0] not in SAMPLE_BYTES:
            raise Failed(f"is {chosen[0]}, which --live cannot send: send it without --live")
        return chosen, sys.byteorder, b"", None
    try:
        start = read_exactly(file, 4)
        if start == b"RIFF":
            found, size = read_wav_header(file)
            return found, "little", b"", size
    except OSError as error:
        raise Failed(f"cannot be read: {error.strerror}") from None
    if name == "-":
        return LIVE_FORMAT, sys.byteorder, start, None
    raise Failed(
        "cannot be played: --live takes WAV files and raw samples; convert it, for example with "
        "ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | client.py --live -"
    )


def shows_partials(options):
    """Returns whether words are shown before they are final: on a terminal, as plain text."""
    formats = (options.json, options.srt, options.vtt, options.words)
    return sys.stdout.isatty() and not any(formats)


def live_source(file, name, options):
    """Returns a thread that reads the audio, and the header of the stream."""
    (encoding, rate, channels), byteorder, start, left = live_format(file, name, options)
    header = {
        "live": True,
        "reply": "partials" if shows_partials(options) else "segments",
        "byteorder": byteorder,
        "content-type": "audio/pcm",
        "content-encoding": encoding,
        "sample-rate": rate,
        "channels": channels,
    }
    header.update(option_fields(options))
    frame = SAMPLE_BYTES[encoding] * channels
    piece = frame * max(1, int(rate * LIVE_SECONDS))
    most = LIVE_FRAME if name == "-" else min(LIVE_FRAME, piece)

    def read():
        nonlocal start, left
        if start:
            block, start = start, b""
            return block
        block = file.read(most if left is None else min(most, left))
        if left is not None:
            left -= len(block)
        return block

    seconds_of = None if name == "-" else lambda count: count / (frame * rate)
    return LiveSource(read, seconds_of), encode_header(header, options)


def stream(connection, header, source, show):
    """Sends live audio and calls `show` with each segment and each partial text; returns the last
    reply."""
    pending, received = memoryview(header), bytearray()
    ended, lost = False, None
    while True:
        while not pending and not ended and not lost:
            block = source.take()
            if block is None:
                break
            if source.error is not None and block == b"":
                reason = getattr(source.error, "strerror", None) or source.error
                raise Failed(f"cannot be read: {reason}")
            ended = block == b""
            pending = memoryview(struct.pack("!H", len(block)) + block)
        readers = [connection] if ended else [connection, source.wake]
        writers = [connection] if pending and not lost else []
        waiting = hasattr(connection, "pending") and connection.pending()
        readable, writable, _ = select.select(readers, writers, [], 0 if waiting else None)
        if source.wake in readable:
            source.wake.recv(4096)
        if connection in readable or waiting:
            try:
                block = connection.recv(CHUNK)
            except OSError as error:
                if must_wait(error):
                    continue
                block, lost = b"", error
            received += block
            while True:
                try:
                    message = parse_message(received)
                    if message is None:
                        break
                    reply, size = message
                    if reply["status"] == "partial":
                        reply["stable"], reply["rest"]
                    elif reply["status"] == "segment":
                        segment = reply["segment"]
                        segment["start"], segment["end"], segment["text"]
                    else:
                        reply["error" if reply["status"] == "error" else "utterances"]
                        return reply
                except (ValueError, TypeError, KeyError):
                    raise Failed(
                        "the peer is not a node-whisper node, or one without live audio: check "
                        "--host and --port"
                    ) from None
                del received[:size]
                show(reply)
            if not block and hasattr(lost, "reason"):
                raise Failed(f"the node ended TLS ({lost.reason}): {advice(lost)}")
            if not block:
                hint = "" if hasattr(connection, "pending") else TLS_HINT
                raise Failed(f"the node closed the connection: see its log{hint}")
        elif writable:
            try:
                pending = pending[connection.send(pending) :]
            except OSError as error:
                if must_wait(error):
                    continue
                # The node accepts no more bytes, but its reply may be waiting.
                lost = error


class LiveLine:
    """The last line of a terminal, with the words that are not final yet. Those that may still
    change are dim."""

    def __init__(self):
        self.shown = False

    def draw(self, stable, rest):
        # What does not fit into one line could not be erased: the end is what is being spoken.
        width = shutil.get_terminal_size().columns - 1
        text = printable(stable + rest)[-width:]
        dim = min(len(rest), len(text))
        solid, unsure = text[: len(text) - dim], text[len(text) - dim :]
        write("\r\x1b[K" + solid + (f"\x1b[2m{unsure}\x1b[0m" if unsure else ""))
        self.shown = True

    def erase(self):
        if self.shown:
            write("\r\x1b[K")
            self.shown = False


def printable(text):
    """Returns the text without characters that a terminal would interpret."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def run_live(options, connections):
    """Streams one source and prints its segments as they become final."""
    name = options.files[0]
    label = "stdin" if name == "-" else name
    count = 0
    line = LiveLine()

    def show(reply):
        nonlocal count
        if reply["status"] == "partial":
            line.draw(reply["stable"], reply["rest"])
            return
        line.erase()
        if options.json:
            write(json.dumps(dict({"file": name}, **reply), ensure_ascii=False) + "\n")
            return
        for cue in cues({"segments": [reply["segment"]]}, options.words):
            count += 1
            write(render_cue(count, cue, options))

    def end_audio(number, frame):
        # The first Ctrl-C ends the audio, and the text of its end still comes.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        source.end()

    try:
        with open_live(name) as file:
            source, header = live_source(file, name, options)
            with contextlib.closing(source), connect(options) as connection:
                connections.append(connection)
                signal.signal(signal.SIGINT, end_audio)
                source.start()
                if options.vtt:
                    write("WEBVTT\n\n")
                try:
                    reply = stream(connection, header, source, show)
                except KeyboardInterrupt:
                    reset_on_close(connection)
                    raise
    except Failed as failure:
        line.erase()
        print(f"{label}: {failure}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        leave(1)
    line.erase()
    if reply["status"] == "error":
        print(f"{label}: {explain(reply)}", file=sys.stderr)
        return 1
    if options.json:
        show(reply)
    if reply.get("truncated"):
        print(f"{label}: the node ended the stream: it is shutting down", file=sys.stderr)
        return 1
    return 0


def write(text):
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"client.py: the output cannot be written: {error.strerror}", file=sys.stderr)
        leave(1)


def reset_on_close(connection):
    """Makes the connection end with a reset, which cancels the request, unlike a close."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def interrupted(progress, connections):
    # A second Ctrl-C must not interrupt the clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for connection in connections.copy():
        reset_on_close(connection)
    # The interrupted code may hold the lock.
    progress.erase(timeout=0.2)
    print("client.py: interrupted", file=sys.stderr)
    leave(130)


def main():
    progress, connections = Progress(), []
    # Ctrl-C may come at any moment, also before the first thread sends.
    try:
        # A service may start the client without them.
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        options = parse_arguments(sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            # Subtitles and JSON are UTF-8 whatever the locale; a terminal gets what it can show.
            if stream.isatty():
                stream.reconfigure(errors="replace")
            else:
                stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        if options.live:
            return run_live(options, connections)
        return run(options, progress, connections)
    except KeyboardInterrupt:
        return interrupted(progress, connections)


if __name__ == "__main__":
    sys.exit(main())
