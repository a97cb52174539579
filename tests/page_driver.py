"""Serves the page of `explore`, and drives it in headless Chromium where there is one."""

import contextlib
import shutil
import threading
import time

import pytest

from soda_jax import explore


@contextlib.contextmanager
def serving(playground):
    """Yields the address of a running server."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(
        uvicorn.Config(explore.make_app(playground), host=explore.HOST, port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://{explore.HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


@contextlib.contextmanager
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its driver; on Debian: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "window-size=1400,900",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield window
    finally:
        window.quit()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def result(window):
    """The source of the finished picture, or "" while it is drawn."""
    script = """return document.getElementById("progress").dataset.done === "yes"
        ? document.getElementById("result").src : "";"""
    return window.execute_script(script)


def change(window, action):
    """The picture before an action, and another one after it."""
    before = wait_for(lambda: result(window))
    action()
    return wait_for(lambda: (now := result(window)) and now != before and now)
