"""`python -m app` with a fake engine, for tests of everything around the engine.

Run it as a program. Everything is real except `app.decoding.engine`. The fake engine takes a moment
for each window and returns a checksum of its samples as the text, so that altered audio gives
another text. A window with the checksum FAKE_NODE_DIES_OF kills the process, like a bug in the
engine.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from app.decoding.hypothesis import Hypothesis  # noqa: E402
from app.decoding.transcriber import DecodeOptions, EngineAborted, GivenUp, ModelInfo  # noqa: E402
from app.messages import Segment  # noqa: E402

WINDOW_SECONDS = float(os.environ.get("FAKE_NODE_WINDOW_SECONDS", "0.02"))
DIES_OF = os.environ.get("FAKE_NODE_DIES_OF")


class Engine:
    def __init__(self, *_: Any, **__: Any) -> None:
        self.info = ModelInfo("fake.en", False, frozenset({"en"}))
        self._aborted = False
        self._giving_up = False

    def warm_up(self) -> None:
        pass

    def rest(self) -> None:
        pass

    def transcribe(self, samples: Any, options: DecodeOptions) -> Hypothesis:
        end = time.monotonic() + WINDOW_SECONDS
        text = f"{zlib.crc32(samples.tobytes()):08x}"
        if text == DIES_OF:
            os.kill(os.getpid(), signal.SIGKILL)
        while time.monotonic() < end:
            if self._aborted:
                raise EngineAborted
            if self._giving_up:
                raise GivenUp
            time.sleep(0.002)
        seconds = len(samples) / 16_000
        return Hypothesis((Segment(0.0, seconds, text, 0.9),), "en", -0.1, seconds)

    def abort(self) -> None:
        self._aborted = True

    def give_up(self) -> None:
        self._giving_up = True

    def resume(self) -> None:
        self._giving_up = False

    def close(self) -> None:
        pass


fake: Any = types.ModuleType("app.decoding.engine")
fake.Engine, fake.build, fake.system_info = Engine, lambda: "fake", lambda: "fake"
sys.modules["app.decoding.engine"] = fake

if __name__ == "__main__":
    from app.__main__ import main

    sys.exit(main())
