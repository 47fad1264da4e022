"""Opens every page of the built site in a headless browser, as a reader would.

    python docs/check.py build/site [FOLDER]

Each page loads, writes nothing to the console, shows all of its pictures and has its
formulas rendered.  On a phone and on a desktop, no page is wider than the window, each
table can be read to its end, and each picture has a text and, on light pages and on
dark ones, the right variant.  The search finds losses by the names that people type,
and the cheat sheet is printed on two pages.  With a folder, screenshots go there.
Needs Chromium, its driver and selenium.
"""

import base64
import contextlib
import functools
import http.server
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
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
WIDTHS = (1400, 390)
# What does not fit: the page itself, a table that something cuts off, a picture.
LAYOUT = """
const wrong = [], root = document.documentElement;
if (root.scrollWidth > root.clientWidth)
  wrong.push(`the page is ${root.scrollWidth} wide, the window ${root.clientWidth}`);
const right = x => x.getBoundingClientRect().right;
const is_cut = table => {
  let box = table.parentElement;
  for (; right(table) > right(box) + 1; box = box.parentElement)
    if (box.matches("article")) return true;
    else if (getComputedStyle(box).overflowX === "auto") return false;
    else if (getComputedStyle(box).overflowX !== "visible") return true;
  return false;
};
for (const table of document.querySelectorAll("article table"))
  if (is_cut(table)) wrong.push(`a table is cut: ${table.innerText.slice(0, 40)}`);
const images = [...document.querySelectorAll("article img")];
for (const theme of images.length ? ["light", "dark"] : []) {
  document.body.dataset.theme = theme;
  if (root.scrollWidth > root.clientWidth) wrong.push(`${theme}: the page is too wide`);
  for (const image of images) {
    const own = image.classList.contains(`only-${theme}`);
    const other = !own && /only-(light|dark)/.test(image.className);
    if ((image.offsetParent === null) !== other)
      wrong.push(`${theme}: the picture of the other theme: ${image.src}`);
  }
}
for (const image of images)
  if (!image.alt || /[.](png|svg)$/.test(image.alt))
    wrong.push(`a picture without a text: ${image.src}`);
const [light, dark] = ["light", "dark"].map(
  x => document.querySelectorAll(`article img.only-${x}`).length);
if (light !== dark) wrong.push(`pictures: ${light} for light pages, ${dark} for dark`);
return wrong;
"""
# What people type, and the losses that should be among the first hits.
WORDS = {
    "bce": ("sigmoid_cross_entropy",),
    "BCEWithLogitsLoss": ("sigmoid_cross_entropy",),
    "mse": ("squared_error",),
    "rmse": ("squared_error",),
    "mae": ("absolute_error",),
    "l1_loss": ("absolute_error",),
    "huber": ("huber",),
    "quantile": ("pinball",),
    "cross entropy": ("sigmoid_cross_entropy", "softmax_cross_entropy"),
    "crossentropy": ("sigmoid_cross_entropy", "softmax_cross_entropy"),
    "focal_loss": ("sigmoid_focal", "softmax_focal"),
    "hinge": ("hinge",),
    "svm": ("hinge",),
    "kld": ("kl_divergence",),
    "dice": ("dice",),
    "iou": ("jaccard",),
    "ranknet": ("logistic",),
    "infonce": ("info_nce",),
    "simclr": ("nt_xent",),
    "triplet": ("triplet",),
}
FIRST_HITS, MOST_SHEETS = 3, 2


def main(site: Path, shots: Path | None = None) -> int:
    pages = sorted(p for p in site.rglob("*.html") if "_modules" not in p.parts)
    formulas, complaints = 0, []
    with served(site) as address, browser() as driver:
        for place, page in enumerate(pages):
            name = page.relative_to(site).as_posix()
            driver.get(f"{address}/{name}")
            found, wrong = inspect(driver)
            fits = layout(driver, WIDTHS[:: 1 if place % 2 else -1])
            formulas += found
            complaints += [f"{name}: {text}" for text in [*wrong, *fits]]
            if shots:
                driver.save_screenshot(shots / f"{name.replace('/', '-')}.png")
        complaints += searches(driver, address)
        count = sheets(driver, f"{address}/generated/cheat-sheet.html")
        if not 0 < count <= MOST_SHEETS:
            complaints.append(f"the cheat sheet is printed on {count} pages")
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


def layout(driver: webdriver.Chrome, widths: Sequence[int]) -> list[str]:
    """What does not fit, at each width and in each theme.

    Pages alternate between the orders of the widths: the first is that of the last one.
    """
    texts = []
    for width in widths:
        resize(driver, width)
        found = driver.execute_script(LAYOUT)
        texts += [f"{width} pixels, {text}" for text in found]
    return texts


def resize(driver: webdriver.Chrome, width: int) -> None:
    """A window may not be as narrow as a phone; what it shows may."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def searches(driver: webdriver.Chrome, address: str) -> list[str]:
    """The words whose losses are not among the first hits."""
    resize(driver, WIDTHS[0])
    texts = []
    for words, losses in WORDS.items():
        hits = search(driver, address, words)
        if not {f"jaxloss.{loss}" for loss in losses} <= {*hits}:
            texts.append(f"the search for {words!r} begins with {', '.join(hits)}")
    return texts


def search(driver: webdriver.Chrome, address: str, words: str) -> list[str]:
    """The titles of the first hits of the search page."""
    driver.get(f"{address}/search.html?q={words}")
    links = "#search-results li > a"
    titles = lambda: [x.text for x in driver.find_elements(By.CSS_SELECTOR, links)]
    return wait(titles, lambda found: len(found) >= FIRST_HITS)[:FIRST_HITS]


def sheets(driver: webdriver.Chrome, page: str) -> int:
    """On how many sheets of paper a page is printed, in the size that it asks for."""
    driver.get(page)
    settings = {"preferCSSPageSize": True}
    printed = driver.execute_cdp_cmd("Page.printToPDF", settings)["data"]
    return len(re.findall(rb"/Type /Page\b", base64.b64decode(printed)))


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
