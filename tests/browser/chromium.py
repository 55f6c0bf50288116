"""A headless Chromium that a test drives over the DevTools protocol, with a microphone that plays a file."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

_VALUE = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
_KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Space": (" ", 32, " ")}


class Tab:
    """One page of the browser.

    Attributes:
        complaints: Exceptions and error messages of the page's console, among them violations of its policy.
        requests: URLs of all requests of the page.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._connection = connection
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Read the browser's messages until the connection closes."""
        async for message in self._connection:
            event = json.loads(message)
            if waiting := self._answers.pop(event.get("id", 0), None):
                waiting.set_result(event)
            parameters = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    self.complaints.append(str(parameters["exceptionDetails"]))
                case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                    self.complaints.append(str(parameters["entry"]["text"]))
                case "Network.requestWillBeSent":
                    self.requests.append(parameters["request"]["url"])

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        answer = await asyncio.wait_for(self._answers[number], 30)
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, or what its promise resolves to.

        It may start sound, as if a person had pressed something.
        """
        answer = await self.ask("Runtime.evaluate", expression=script, **_VALUE)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, within_s: float = 15) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        end = time.monotonic() + within_s
        while not (value := await self.run(script)):
            if time.monotonic() > end:
                state = await self.run(
                    "document.body.innerText + JSON.stringify(document.getElementById('call').dataset)"
                )
                raise AssertionError(f"never true: {script}\n{state}\n{self.complaints}")
            await asyncio.sleep(0.02)
        return value

    async def press(self, *keys: str) -> None:
        """Press keys one after the other: names of `_KEYS`, or characters."""
        for name in keys:
            key, code, text = _KEYS.get(name, (name, ord(name[0].upper()), name))
            common = {"key": key, "code": name, "windowsVirtualKeyCode": code}
            await self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            await self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    async def screenshot(self, *, width: int, height: int, dark: bool = False) -> bytes:
        """Return a PNG of the page in a window of this size, in CSS pixels."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        await asyncio.sleep(0.3)
        shot = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def chromium(profile: Path, microphone: Path, before: str = "") -> AsyncIterator[Tab]:
    """Run a browser and yield its only tab.

    Args:
        profile: Folder for the browser's data, which must not exist yet.
        microphone: WAV file that the microphone plays once, from the moment at which a page opens it.
        before: JavaScript that runs in every page before the page's own scripts.
    """
    command = [
        "chromium",
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        "--mute-audio",
        "--allow-loopback-in-peer-connection",
    ]
    command += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--no-first-run"]
    command += [f"--use-file-for-fake-audio-capture={microphone}%noloop", f"--user-data-dir={profile}", "about:blank"]
    silent = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)
    try:
        async with connect(await _address(profile), max_size=None) as browser:
            tab = Tab(browser)
            listening = asyncio.create_task(tab.listen())
            try:
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.ask(f"{domain}.enable")
                # A headless window has no focus of its own, so keys would go nowhere.
                await tab.ask("Emulation.setFocusEmulationEnabled", enabled=True)
                await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=before)
                yield tab
            finally:
                listening.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _address(profile: Path) -> str:
    """Return the WebSocket URL of the browser's first tab, once the browser has written its port."""
    port_file = profile / "DevToolsActivePort"
    async with asyncio.timeout(30):
        while not port_file.exists() or "\n" not in port_file.read_text():  # noqa: ASYNC110  # a file has no event
            await asyncio.sleep(0.05)
        port = port_file.read_text().split("\n")[0]
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            writer.write(f"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))[15:])
            pages = [page for page in json.loads(await reader.readexactly(length)) if page["type"] == "page"]
            writer.close()
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
