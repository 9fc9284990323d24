"""The demo site and the directory list in headless Chromium."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from helpers_web import Serving, serving

from tlsserver import local_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER), reason="no Chromium: apt-get install -y chromium chromium-driver"
    ),
]

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars"
)
WAIT = 20  # seconds until a condition counts as failed; each holds within two


class Browser:
    """A window, seen through what a page shows."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        options.accept_insecure_certs = True
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))

    def window(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of this size, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def scripts(self, *, enabled: bool) -> None:
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not enabled})

    def open(self, url: str) -> None:
        self.driver.get(url)

    def text(self, selector: str) -> str:
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def counter(self, name: str) -> int:
        return int(self.text(f"[data-counter={name}]").replace(",", ""))

    def table(self) -> dict[str, str]:
        rows = self.driver.find_elements(By.CSS_SELECTOR, "#connection tr")
        return {row.find_element(By.TAG_NAME, "th").text: row.find_element(By.TAG_NAME, "td").text for row in rows}

    def until(self, condition: Any) -> None:
        WebDriverWait(self.driver, WAIT, poll_frequency=0.05).until(lambda _: condition())

    def complaints(self) -> list[str]:
        """What the console says since the last call: errors, warnings, violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.window(1200, 1260)
    chromium.scripts(enabled=True)
    yield chromium
    chromium.open("about:blank")
    chromium.complaints()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for localhost and its key."""
    made = local_certificate.generate(local_certificate.LOCAL_NAMES)
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    local_certificate.write_private(path, made.key + made.certificate)
    return path


@pytest.fixture(scope="module")
def demo(certificate: Path) -> Iterator[Serving]:
    with serving(f"--certfile={certificate}", "--offload=latency:30") as served:
        yield served


def test_the_page_shows_the_connection_and_moves(
    browser: Browser, demo: Serving, certificate: Path, tmp_path: Path
) -> None:
    browser.open(demo.url)
    browser.until(lambda: browser.text("#status") == "live")
    table = browser.table()
    assert table["Protocol"] == "TLS 1.3"
    assert table["Cipher suite"].startswith("TLS_")
    assert table["Application"] == "http/1.1"
    assert table["Server name"] == "localhost"
    assert table["Engine"] == "latency:30"
    assert table["Linkage"] in {"shared", "static"}
    assert table["Session"] in {"new", "resumed"}
    if table["Session"] == "new":
        for told in (table["Handshake"], browser.text("h1")):
            waited = re.match(r"(?:parked once, for|Your handshake waited)\s([\d.]+)\sms", told)
            assert waited, told
            assert float(waited[1]) > 10  # of 30, less what passed between the op and the pause

    before = browser.counter("handshakes_completed")
    for _ in range(5):
        demo.get(certificate)
    browser.until(lambda: browser.counter("handshakes_completed") >= before + 5)
    browser.until(lambda: browser.count(".plot .line") == 2)
    browser.until(lambda: browser.count("#parks:not([hidden]) .bars div") > 0)
    assert browser.counter("handshakes_parked") >= 6

    for name, width, height, dark in (
        ("light", 1200, 1260, False),
        ("dark", 1200, 1260, True),
        ("phone", 390, 2350, False),
    ):
        browser.window(width, height, dark=dark)
        browser.until(lambda: browser.overflow() <= 0)
        browser.driver.save_screenshot(str(tmp_path / f"{name}.png"))
    assert browser.complaints() == []


def test_a_second_page_has_the_last_minute_at_once(browser: Browser, demo: Serving) -> None:
    browser.open(demo.url)
    browser.until(lambda: browser.count(".plot .line") == 2)
    browser.open(demo.url)
    browser.until(lambda: browser.count(".plot .line") == 2)
    assert browser.complaints() == []


def test_the_page_without_scripts(browser: Browser, demo: Serving) -> None:
    browser.scripts(enabled=False)
    browser.open(demo.url)
    assert browser.table()["Engine"] == "latency:30"
    assert browser.counter("handshakes_completed") > 0
    assert "when the page was loaded" in browser.text("noscript p")
    assert browser.complaints() == []


def test_the_page_says_so_when_the_server_is_gone(browser: Browser, certificate: Path) -> None:
    with serving(f"--certfile={certificate}") as served:
        browser.open(served.url)
        browser.until(lambda: browser.text("#status") == "live")
        served.process.terminate()
        browser.until(lambda: browser.text("#status") == "reconnecting")
        assert served.wait()[0] == 0


def test_a_list_of_files(browser: Browser, certificate: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "a folder").mkdir(parents=True)
    (folder / "a folder" / "javascript:alert(1).txt").write_text("harmless")
    with serving(str(folder), f"--certfile={certificate}") as served:
        browser.open(served.url)
        assert browser.driver.find_element(By.TAG_NAME, "main").value_of_css_property("max-width") == "896px"
        browser.driver.find_element(By.LINK_TEXT, "a folder/").click()
        browser.until(lambda: browser.text("h1") == "/a folder/")
        browser.driver.save_screenshot(str(tmp_path / "files.png"))
        assert browser.complaints() == []
        browser.driver.find_element(By.LINK_TEXT, "javascript:alert(1).txt").click()
        browser.until(lambda: browser.text("body") == "harmless")
