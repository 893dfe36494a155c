"""The report in headless Chromium: a keyboard, a telephone, the dark, paper, and an attack.

Debian's package chromium is driven by playwright; without either these tests are skipped, and
tests/test_report.py still checks that the page is escaped and loads nothing.
"""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tailcast
from tailcast.report import read_run, write_report
from tailcast.report.outlook import expected
from tailcast.report.words import anchor
from tailcast.types import Query
from test_report import judge, target

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE_ID = "</script><b>x"

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium: apt-get install chromium to test the page in a browser"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, unit):
    out = tmp_path_factory.mktemp("runs") / "mixed"
    names = ["one", "two", "three", HOSTILE_ID, "never"]
    prompts = ["* <i>hello</i>", "+", ",", "-", "0"]
    tailcast.estimate(
        target(), [Query.user(*pair) for pair in zip(names, prompts, strict=True)], judge,
        steering=unit, out=out, samples=200, monte_carlo=100, max_new_tokens=3,
        strengths=(1.0,), switches=(2,), heats=(1.5,), openings=False,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report([run], out, show_text=True)
    return f"file://{out}"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install it")
    with (
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"]) as found,
    ):
        yield found


@pytest.fixture
def visit(browser, address):
    """Opens the page in a context of its own; fails on errors and on anything loaded."""
    contexts, wrong = [], []

    def opened(place="", **settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("request", lambda asked: asked.url.startswith(address) or wrong.append(asked.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text))
        page.goto(address + place)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def values(page, name):
    cells = page.locator(f'[data-cell="{name}"]').all()
    return [float(cell.get_attribute("data-value")) for cell in cells]


def test_a_hostile_completion_does_nothing(visit):
    page = visit()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait_for_timeout(200)
    assert page.locator(".completions pre").first.inner_text().startswith("<script>")
    assert page.title() == "Tail risk of mixed"
    assert page.locator("img").count() == 0 and page.locator("script").count() == 1


@pytest.mark.parametrize("policy", [True, False])
def test_even_unescaped_it_would_not_run(policy, browser, tmp_path, address):
    """The page's own policy, without the escaping; and without the policy the attack works."""
    text = Path(address.removeprefix("file://")).read_text("utf-8")
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    text = text.replace("<footer>", attack + "<footer>")
    if not policy:
        text = text.replace("Content-Security-Policy", "x-nothing")
    (tmp_path / "attacked.html").write_text(text, "utf-8")
    page = browser.new_page()
    page.goto(f"file://{tmp_path / 'attacked.html'}")
    page.wait_for_timeout(200)
    assert page.title() == ("Tail risk of mixed" if policy else "owned")
    page.close()


def test_completions_wait_behind_a_click(visit):
    page = visit("#" + anchor("one"))
    text = page.locator(f"#{anchor('one')} .completions pre").first
    assert not text.is_visible()
    page.locator(f"#{anchor('one')} .completions summary").click()
    assert text.is_visible()


def test_the_calculator_reckons(visit, run):
    page, found = visit(), read_run(run)
    ends = (found.overall.p, found.overall.low, found.overall.high)
    assert values(page, "daily") == pytest.approx([p * 1e6 for p in ends])
    page.get_by_label("Calls a day").fill("50")
    page.get_by_label("Days").fill("2")
    assert values(page, "daily") == pytest.approx([50 * p for p in ends])
    assert values(page, "period") == pytest.approx([expected(p, 100).hits for p in ends])
    assert values(page, "chance") == pytest.approx([expected(p, 50).at_least_one for p in ends])
    assert values(page, "chances") == pytest.approx([expected(p, 100).at_least_one for p in ends])
    assert values(page, "wait") == pytest.approx([1 / (50 * p) for p in ends])
    never = found.main["never"]
    page.get_by_label("Each call asks").select_option(index=len(found.main))
    assert values(page, "daily")[0] == 0 and values(page, "wait")[0] == np.inf
    assert values(page, "daily")[2] == pytest.approx(
        50 * min(never.ci_high, never.p_high_guaranteed)
    )
    assert "never" in page.locator('[data-cell="wait"]').first.inner_text()
    page.get_by_label("Calls a day").fill("")
    assert values(page, "daily")[0] == 0  # what was last asked stays


def test_the_table_sorts_and_filters_by_keyboard(visit, run):
    page, found = visit(), read_run(run)
    names = page.locator("table.sortable tbody tr:not([hidden]) th")
    assert names.all_inner_texts() == [one.query_id for one in found.ranked]
    page.get_by_role("button", name="Hits").focus()
    for order in ("descending", "ascending"):
        page.keyboard.press("Enter")
        head = page.locator("table.sortable th[aria-sort]")
        assert head.get_attribute("aria-sort") == order and head.inner_text().startswith("Hits")
        hits = [found.main[name].n_hits for name in names.all_inner_texts()]
        assert hits == sorted(hits, reverse=order == "descending")
    page.get_by_label("Find").fill("NEVER")
    assert names.all_inner_texts() == ["never"]
    page.get_by_label("Find").fill("")
    page.locator("form.filter").get_by_label("Verdict").select_option("ok")
    ok = {one.query_id for one in found.ranked if one.verdict == "ok"}
    assert set(names.all_inner_texts()) == ok
    assert page.locator("form.filter output").inner_text() == f"{len(ok)} of 5 queries"


def test_links_lead_to_a_query_and_open_it(visit):
    page = visit()
    page.get_by_role("link", name=HOSTILE_ID, exact=True).click()
    page.locator(f"#{anchor(HOSTILE_ID)}[open]").wait_for(timeout=3000)
    assert page.evaluate("document.activeElement.textContent").startswith(HOSTILE_ID)
    page.locator('figure .wide a[href="#q-two"]').first.click(force=True)
    page.locator("#q-two[open]").wait_for(timeout=3000)


def test_a_keyboard_and_a_screen_reader_find_their_way(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input,select')].filter((one) => !one.labels.length).length"
    )
    assert unnamed == 0
    for figure in page.locator("figure").all():
        assert len(figure.locator(".spoken").inner_text()) > 30
        assert len(figure.locator("figcaption").inner_text()) > 30
    assert page.locator("figure svg [tabindex='0'], figure svg a:not([tabindex])").count() == 0
    scrolling = page.evaluate(
        "[...document.querySelectorAll('.scroll')].every((one) => one.tabIndex === 0 && "
        "one.getAttribute('aria-label'))"
    )
    assert scrolling


@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_the_screen_and_opens_fast(visit, width):
    page = visit(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure .narrow").first.is_visible() == (width == 390)
    assert page.locator("figure .wide").first.is_visible() == (width == 1440)
    taken = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert taken < 2000  # milliseconds


def test_it_is_dark_in_the_dark_and_light_on_paper(visit):
    def ground(page):
        shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in shown[4:-1].split(","))

    page = visit(color_scheme="dark")
    assert ground(page) < 100
    ink = page.locator("figure .wide svg text").first.evaluate(
        "(one) => getComputedStyle(one).fill"
    )
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    page.emulate_media(media="print")
    assert ground(page) > 700
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.query blockquote").first.is_visible()
    assert not page.locator(".completions pre").first.is_visible()


def test_without_scripts_it_can_still_be_read(visit, run):
    page = visit(java_script_enabled=False)
    assert not page.locator("form.calculator").is_visible()
    daily = page.locator('[data-cell="daily"]').first
    assert float(daily.get_attribute("data-value")) == pytest.approx(read_run(run).overall.p * 1e6)
    assert page.locator("figure .wide svg").first.is_visible()
