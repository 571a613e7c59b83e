"""Headless Chromium through its DevTools protocol, over a pipe: no package and no port is needed. Every wait has a limit."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIMIT = 60.0
"""Seconds that anything may take: the machine may be busy."""
OUTSIDE = re.compile(r"^(?!data:|blob:|file:|about:|chrome)")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9}


def find() -> str:
    """The browser's path; the test is skipped where there is none."""
    found = next((b for b in map(shutil.which, BROWSERS) if b), None)
    if not found:
        pytest.skip("needs Chromium")
    return found


class Page:
    """One page of a browser of its own; use it in a ``with``.

    ``errors``: what the console and the scripts complained of; ``requests``: addresses outside this page that it asked for.
    """

    def __init__(self, folder: Path, width: int = 1366, height: int = 768):
        self.folder = Path(folder)
        self.downloads = self.folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        self._n, self._rest = 0, b""
        given, self._out = os.pipe()
        self._in, answers = os.pipe()
        command = [
            find(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={self.folder / 'profile'}",
            "--disable-component-update", "--disable-background-networking", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--window-size={width},{height}", "about:blank",
        ]  # fmt: skip
        self._browser = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{given} 4>&{answers}', "browser", *command],
            pass_fds=(given, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(given)
        os.close(answers)
        self._session = None

    def __enter__(self) -> Page:
        try:
            target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._browser.kill()
        self._browser.wait(10)
        os.close(self._in)
        os.close(self._out)

    # ---- the protocol

    def _message(self, deadline: float) -> dict:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser did not answer in time")
            read = os.read(self._in, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self._rest += read
        text, self._rest = self._rest.split(b"\0", 1)
        return json.loads(text)

    def _note(self, message: dict) -> None:
        method, p = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(p["exceptionDetails"])[:2000])
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.errors.append(p["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
            self.errors.append(json.dumps(p["args"])[:2000])
        elif method == "Network.requestWillBeSent" and OUTSIDE.match(p["request"]["url"]):
            self.requests.append(p["request"]["url"][:200])
        elif method == "Page.loadEventFired":
            self.loaded = True

    def call(self, method: str, limit: float = LIMIT, **params) -> dict:
        """A command of the protocol and its result."""
        self._n += 1
        message = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + limit
        while True:
            got = self._message(deadline)
            if got.get("id") == self._n:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                return got["result"]
            self._note(got)

    def cpu(self) -> float:
        """CPU seconds that all processes of the browser have taken: unlike the clock they don't grow with the machine's other work."""
        family, seconds = {self._browser.pid}, 0.0
        for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda f: int(f.name)):
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(folder.name) in family or int(fields[1]) in family:
                family.add(int(folder.name))
                seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return seconds

    # ---- what a reader does

    def open(self, address: str, limit: float = LIMIT) -> float:
        """Open an address; returns the seconds until its load event."""
        self.loaded, begun = False, time.monotonic()
        self.call("Page.navigate", limit, url=address)
        while not self.loaded:
            self._note(self._message(begun + limit))
        return time.monotonic() - begun

    def js(self, expression: str, limit: float = LIMIT):
        """The value of an expression in the page; promises are awaited."""
        got = self.call("Runtime.evaluate", limit, expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise RuntimeError(json.dumps(got["exceptionDetails"])[:2000])
        return got["result"].get("value")

    def wait(self, expression: str, limit: float = LIMIT):
        """Until the expression is true."""
        deadline = time.monotonic() + limit
        while not (value := self.js(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.05)
        return value

    def centre(self, selector: str) -> tuple[float, float]:
        """Where an element is in the window, scrolled into view."""
        find = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
        box = "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2];"
        return tuple(self.js(f"(() => {{{find}{box}}})()"))

    def move(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        x, y = self.centre(selector)
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def key(self, name: str) -> None:
        code = KEYS[name]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def download(self, ending: str, limit: float = 30.0) -> Path:
        """The file that a click left, once it is whole."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            found = [f for f in self.downloads.iterdir() if f.suffix == ending]
            if found and found[0].stat().st_size:
                return found[0]
            self.js("1")
            time.sleep(0.1)
        raise TimeoutError(f"no {ending} was downloaded")

    def picture(self, path: Path, width: int = 1366, height: int | None = None, dark: bool = False, media: str = "screen") -> None:
        """A PNG of the page at this width: of the whole page where no height is given."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height or 800, deviceScaleFactor=1, mobile=False)
        time.sleep(0.5)
        options = {} if height else {"captureBeyondViewport": True}
        if not height:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": width, "height": min(size["height"], 16000), "scale": 1}
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))
