"""Debian's Chromium, driven over its DevTools protocol, for tests/test_page.py.

`--remote-debugging-pipe` makes the browser speak that protocol on two pipes, as JSON objects that
end with a NUL. The tests need no port, no WebSocket and no driver for the exact version of the
browser, and a browser whose pipe is closed exits. `complaints` keeps the errors that the page
reported, from its script or its content security policy.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

HANG = 180.0
"""Seconds until a test gives up; far longer than the slowest step takes."""

Fields = dict[str, Any]


def find() -> str | None:
    """The path of an installed browser that starts, or None."""
    for name in ("chromium", "chromium-browser"):
        program = shutil.which(name)
        if program is None:
            continue
        asked = subprocess.run([program, "--version"], capture_output=True, timeout=HANG)
        if asked.returncode == 0:
            return program
    return None


class Browser:
    """A browser with one tab. Its microphone plays the WAV file `microphone` once, from the
    beginning, each time it is opened."""

    def __init__(self, program: str, microphone: Path, *flags: str) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        arguments = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._folder.name}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={microphone}%noloop",
            *flags,
        ]
        if os.geteuid() == 0:
            arguments += ["--no-sandbox"]  # as root it cannot use its sandbox
        to_browser, self._to = _pipe()
        self._from, from_browser = _pipe()
        # The browser expects the pipes as descriptors 3 and 4.
        self._process = subprocess.Popen(
            [*("bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}'), "bash", *arguments],
            env=os.environ | {"HOME": self._folder.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(to_browser, from_browser),
        )
        os.close(to_browser)
        os.close(from_browser)
        self._messages: queue.SimpleQueue[Fields | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._to)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(HANG)
        self._reader.join(HANG)
        os.close(self._from)
        self._folder.cleanup()

    # Actions of a person.

    def open(self, address: str) -> None:
        """Load or reload a page; return once it has loaded and its script has run."""
        # An empty page first, so that no test can read the old one.
        self.call("Page.navigate", url="about:blank")
        self.wait('location.href === "about:blank"')
        self.complaints.clear()
        self.call("Page.navigate", url=address)
        self.wait('location.href !== "about:blank"')
        self.wait('document.readyState === "complete"')

    def click(self, selector: str) -> None:
        """Click in the middle of the element, which must be on the page and enabled."""
        assert self.evaluate(f"!document.querySelector({json.dumps(selector)}).disabled"), selector
        x, y = self.evaluate(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                found.scrollIntoView({{block: "center"}});
                const box = found.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def allow_microphone(self, yes: bool) -> None:
        """Grant or deny the page's request for the microphone."""
        self.call(
            "Browser.setPermission",
            permission={"name": "microphone"},
            setting="granted" if yes else "denied",
        )

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press one key, given by its name, its Windows key code and the text that it types."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file, as in the dialogue of the file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(path)])

    def save_files_to(self, folder: Path) -> None:
        """Let the page save files there without asking."""
        self.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            eventsEnabled=True,
        )

    def drop_file(self, path: Path) -> None:
        """Drag a file over the page and drop it in the middle."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    # The page as a person sees it.

    def text(self, selector: str) -> str:
        """The visible text of an element; "" if it is hidden or missing."""
        return str(
            self.evaluate(
                f"""(() => {{
                    const found = document.querySelector({json.dumps(selector)});
                    return found?.checkVisibility() ? found.innerText : "";
                }})()"""
            )
        )

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise. An exception fails the test."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until the expression is true."""
        self.until(lambda: bool(self.evaluate(condition)), condition)

    def wait_for_text(self, selector: str, wanted: str) -> None:
        """Wait until the element's text contains `wanted`."""
        self.until(lambda: wanted in self.text(selector), f"{selector}: {wanted}")

    def until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + HANG
        while not holds():
            if time.monotonic() > end:
                shown = self.evaluate("document.body.innerText")
                raise AssertionError(f"never came: {what}\n{self.complaints}\n{shown}")
            time.sleep(0.05)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Emulate a screen of this kind from now on."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2,
            mobile=width < 500,
        )

    def picture(self) -> bytes:
        """Save the screen as a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    # The protocol.

    def call(self, method: str, **parameters: Any) -> Fields:
        """Send a command and return its result. Complaints that arrive meanwhile are kept."""
        self._number += 1
        message: Fields = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._messages.get(timeout=HANG)
            assert answer is not None, f"the browser ended: {method}"
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: Fields = answer["result"]
                return result
            self._keep(answer)

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = session
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.allow_microphone(True)

    def _keep(self, event: Fields) -> None:
        """Keep an event that is a complaint: an error that the script logged or did not catch, or
        one by the browser itself (forbidden by the content security policy, not loadable)."""
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.complaints.append(json.dumps(about["args"]))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(f"{about['entry']['text']} ({about['entry'].get('url')})")

    def _read(self) -> None:
        left = b""
        while data := os.read(self._from, 1 << 20):
            *whole, left = (left + data).split(b"\0")
            for message in whole:
                self._messages.put(json.loads(message))
        self._messages.put(None)


def _pipe() -> tuple[int, int]:
    """Reading and writing end, both above the descriptors that the browser expects."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
