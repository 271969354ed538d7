"""Headless Chromium, driven by its DevTools protocol: as little as a person's clicks need."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FIND = """(selector, text) => [...document.querySelectorAll(selector)].find(
  one => one.textContent.trim().startsWith(text) && one.getClientRects().length)"""


def executable() -> str | None:
    """Chromium's command on this machine, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab of a browser with nothing in it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._calls = socket, 0
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> Any:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("id") == self._calls:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 180) -> None:
        """Waits until JavaScript takes an expression for true."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.evaluate(f"Boolean({expression})"):
                    return
            except AssertionError:  # the page is on its way to another
                pass
            assert time.monotonic() < deadline, f"no {expression} within {seconds:.0f} s in {self.text()[:3000]}"
            time.sleep(0.2)

    def text(self) -> str:
        """What a person reads."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def click(
        self, text: str, *, selector: str = "a, button, [role=tab], [role=menuitem], label", seconds: float = 180
    ) -> None:
        """Clicks, as a mouse does, what is visible and begins with this text."""
        one = f"({FIND})({json.dumps(selector)}, {json.dumps(text)})"
        self.wait_for(one + " !== undefined", seconds=seconds)
        x, y = self.evaluate(
            f"(one => {{ one.scrollIntoView({{block: 'center'}}); const at = one.getBoundingClientRect();"
            f" return [at.x + at.width / 2, at.y + at.height / 2] }})({one})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def fill(self, selector: str, value: str, *, seconds: float = 180) -> None:
        """Puts a value into a field, and lets the page know as typing does."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})", seconds=seconds)
        self.evaluate(f"""(() => {{ const field = document.querySelector({json.dumps(selector)});
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, {json.dumps(value)});
            for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {{bubbles: true}})) }})()""")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Escape": 27}[key])

    def show_as(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it keeps in `folder`, and ends with the block."""
    command = executable()
    assert command is not None
    options = [
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-breakpad",
        "--hide-scrollbars",
    ]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with subprocess.Popen(
        [command, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port = _port(folder / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
                tab = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()


def _port(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.read_text().count("\n")):
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.1)
    return int(path.read_text().splitlines()[0])
