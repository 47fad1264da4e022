"""Opens every page of the built site in a headless browser, as a reader would.

    python docs/check.py build/site [FOLDER]

Each page loads, writes nothing to the console, shows all of its pictures and has its
formulas rendered; the search finds `huber`.  With a folder, screenshots go there.
Needs Chromium, its driver and selenium.
"""

import contextlib
import functools
import http.server
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,1500",
)
# How many formulas a page has as source, and as what MathJax made of them.
FORMULAS = """
const sources = document.querySelectorAll(".math").length;
const rendered = document.querySelectorAll("mjx-container").length;
return [sources, rendered, document.querySelectorAll("mjx-merror").length];
"""
BROKEN = """
return [...document.images].filter(x => !x.complete || !x.naturalWidth).map(x => x.src);
"""


def main(site: Path, shots: Path | None = None) -> int:
    pages = sorted(p for p in site.rglob("*.html") if "_modules" not in p.parts)
    formulas, complaints = 0, []
    with served(site) as address, browser() as driver:
        for page in pages:
            name = page.relative_to(site).as_posix()
            driver.get(f"{address}/{name}")
            found, wrong = inspect(driver)
            formulas += found
            complaints += [f"{name}: {text}" for text in wrong]
            if shots:
                driver.save_screenshot(shots / f"{name.replace('/', '-')}.png")
        if not any("huber" in title for title in search(driver, address, "huber")):
            complaints.append("the search does not find huber")
    for complaint in complaints:
        print(complaint)
    print(f"{len(pages)} pages, {formulas} formulas, {len(complaints)} complaints")
    return 1 if complaints or not formulas else 0


def inspect(driver: webdriver.Chrome) -> tuple[int, list[str]]:
    """The number of formulas of a page, and what is wrong with it."""
    sources, rendered, wrong = wait(
        lambda: driver.execute_script(FORMULAS), lambda counts: counts[1] >= counts[0]
    )
    texts = [f"{wrong} formulas with an error"] if wrong else []
    if rendered < sources:
        texts.append(f"{rendered} of {sources} formulas are rendered")
    texts += [f"no picture {src}" for src in driver.execute_script(BROKEN)]
    texts += [entry["message"] for entry in driver.get_log("browser")]
    return rendered, texts


def search(driver: webdriver.Chrome, address: str, words: str) -> list[str]:
    """The titles that the search page finds."""
    driver.get(f"{address}/search.html?q={words}")
    titles = lambda: [
        link.text for link in driver.find_elements(By.CSS_SELECTOR, "#search-results a")
    ]
    return wait(titles, bool)


def wait(look, enough, seconds: float = 20.0):
    """What `look` sees as soon as it is enough, or when the time is over."""
    end = time.monotonic() + seconds
    while not enough(seen := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return seen


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of the site on this machine."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        yield driver


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
