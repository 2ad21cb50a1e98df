"""A flag in memory that stops whisper.cpp within a pass, if the engine has the patch for it.

whisper.cpp asks its abort callback only after a whole pass: on a board the encoder's takes seconds.
An engine of `scripts/build_engine` and the image's engine read this flag before each node of a
pass's graph. A callback there would take Python's lock hundreds of times in a pass. Any thread.
"""

from __future__ import annotations

import ctypes


class StopFlag:
    """The flag of one engine. It must exist as long as a context that reads it.

    While it is set, each pass on such a context fails, so `whisper_full` returns a code other than
    0. Whoever sets it must also stop the decode through the abort callback: a wheel reads no flag.
    """

    def __init__(self) -> None:
        self._value = ctypes.c_int32(0)
        self.is_read = False
        """Whether the loaded engine reads the flag; if not, a pass runs to its end."""

    def set(self) -> None:
        """Stop the pass in progress and every later one."""
        self._value.value = 1

    def clear(self) -> None:
        """Let passes run again."""
        self._value.value = 0

    def connect(self, library: ctypes.CDLL, context: int) -> None:
        """Let whisper.cpp's `context` read the flag; nothing happens if `library` cannot."""
        try:
            set_flag = library.node_whisper_set_stop_flag
        except AttributeError:
            self.is_read = False
            return
        set_flag.argtypes, set_flag.restype = [ctypes.c_void_p, ctypes.c_void_p], None
        set_flag(context, ctypes.addressof(self._value))
        self.is_read = True
