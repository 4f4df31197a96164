"""A real browser for the page of an audit: Debian's Chromium, without a window and without a network."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


_LOAD_TIMEOUT = 60.0  # seconds: on a busy machine the driver may return before the page is there


@attrs.define
class Browser:
    """A browser with one page."""

    driver: Any

    def open(self, path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Open a file in a window of a size, in a light or a dark color scheme."""
        self.driver.get_log("performance")  # earlier messages
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(path.as_uri())
        deadline = time.monotonic() + _LOAD_TIMEOUT
        while not self.js(f"location.href === {json.dumps(path.as_uri())} && document.readyState === 'complete'"):
            assert time.monotonic() < deadline, "the page is not loaded"
            time.sleep(0.01)

    def devtools(self, command: str, **arguments: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def js(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        return self.driver.execute_script(f"return {expression}")

    def console(self) -> list[str]:
        """Return the messages of the page's console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the URLs that the page has requested."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"] == self.driver.current_url  # not the browser's own first page
        ]


def missing_browser() -> str | None:
    """Return what is missing for a browser; `None` if there is one."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"there is no {' and no '.join(missing)} on this machine" if missing else None


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Run the installed browser. selenium gets its path, so that it never downloads one."""
    if reason := missing_browser():
        pytest.skip(reason)
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.unhandled_prompt_behavior = "ignore"  # a dialog stays open, so that the test sees it
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
