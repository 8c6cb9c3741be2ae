"""The Gradio page of a Space, served from its own folder, and a headless Chromium to look at it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tagwright.task import ROOT

APP = ROOT / "deployment" / "gradio"


def assemble(model: Path, space: Path) -> Path:
    """Put a model's Space together as `make space` does."""
    subprocess.run([sys.executable, APP / "assemble.py", model, space], check=True)
    return space


@contextlib.contextmanager
def served(space: Path) -> Iterator[str]:
    """The address of the page, served from the Space's own folder and its own copy of the library."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(space), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=space, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, server.stdout.read()
                assert time.monotonic() < deadline, "the page did not come up in 60 s"
                time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@contextlib.contextmanager
def chromium(downloads: Path | None = None) -> Iterator[webdriver.Chrome]:
    assert shutil.which("chromium"), "install chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-background-networking", "--window-size=1200,900"):
        options.add_argument(argument)
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    browser.get(address)
    for part in ("[id^=field-] :is(textarea, input)", "#tag-it"):  # each kind of part comes with a script of its own
        WebDriverWait(browser, 30).until(lambda b, part=part: b.find_elements(By.CSS_SELECTOR, part))
    return browser


def box(page, element_id: str):
    return page.find_element(By.CSS_SELECTOR, f"#{element_id} textarea, #{element_id} input")


def set_value(page, element_id: str, text: str) -> None:
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    page.execute_script(script, box(page, element_id), text)


def submit_and_read(page, button: str = "tag-it") -> str:
    page.find_element(By.ID, button).click()
    WebDriverWait(page, 20).until(lambda _: page.find_elements(By.CSS_SELECTOR, "#result .note, #result .message"))
    return page.find_element(By.ID, "result").text
