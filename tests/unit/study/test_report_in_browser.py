"""The report in a real browser: nothing is missing, tables sort and filter, figures open large, nothing is wider than the window.

Skipped where there is no Chromium (Debian: ``apt-get install chromium``).
"""

from __future__ import annotations

import base64
import json
import re
import shutil

import browser
import fabricated
import numpy as np
import pandas as pd
import pytest

from drstudy.core import paths
from drstudy.papers import registry
from drstudy.papers.transfer import params
from drstudy.study import claims, report

pytestmark = [
    pytest.mark.skipif(browser.executable() is None, reason="there is no Chromium to look at the page with"),
]

ROWS = 40
WIDTHS = (1280, 400)


def evidence(**more) -> claims.Evidence:
    return claims.Evidence(notebook=params.DataAudit.notebook, table="found", **more)


def ledger() -> list[claims.Claim]:
    """One claim for each verdict, and one of two numbers."""
    about = {
        "paper": "Someone 2030",
        "own_networks": False,
        "setting": "any",
        "needs": "a scanner that nobody has",
        "maps_to": "a mean",
    }
    number = {"tolerance": 0.01, "widest": 0.1, "why": "the last printed digit"}
    up, down, wide = ({"where": {"name": name}} for name in ("up", "down", "wide"))
    long = "a claim with a long sentence, so that the columns have to share the width of the page fairly"
    return [
        claims.Claim(id="a", place="Table 1", says=long, evidence=(evidence(sign=1, **up),), **about),
        claims.Claim(id="b", place="Table 2", says="down", evidence=(evidence(sign=1, **down),), **about),
        claims.Claim(id="c", place="Table 3", says="wide", evidence=(evidence(sign=1, **wide),), **about),
        claims.Claim(id="d", place="Table 4", says="both", evidence=(evidence(printed=0.2, **up), evidence(printed=0.2, **down)), **about, **number),
        claims.Claim(id="e", place="Table 5", says="nowhere", **about),
        claims.Claim(id="f", place="Table 6", says="nothing", evidence=(evidence(sign=1, where={"name": "none"}),), **about),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A small report: a short table, a long one, a very wide one, a drawing, a photograph."""
    base = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    found = pd.DataFrame(
        {
            "name": ["up", "down", "wide"],
            "value": [0.2, -0.2, 0.05],
            "lo": [0.19, -0.3, -0.1],
            "hi": [0.21, -0.1, 0.2],
        }
    )
    regions = ["MA", "HE", "EX", "SE"]
    long = pd.DataFrame(
        {"layer": "norm5_relu", "region": [regions[row % 4] for row in range(ROWS)], "metric": "dice_validation", "eyes": range(ROWS)}
        | {f"minus {name}": [f"{row / 10 - 2:+.1f} ({row / 10 - 3:.1f} to {row / 10:.1f})" for row in range(ROWS)] for name in ("random", "centre")}
    )  # fmt: skip
    wide = pd.DataFrame(
        {f"accuracy_{name}": ["0.123 [0.012, 0.234]; sd 0.05"] * 3 for name in "abcdefghijklmnopqrst"}
    )
    photograph = random.integers(0, 255, (300, 500, 3), np.uint8)
    drawing = np.full((80, 900, 3), 255, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRSTUDY_RESULTS", str(base / "results"))
        patch.setenv("DRSTUDY_DATA", str(base / "data"))
        patch.setattr(claims, "read", ledger)
        fabricated.stage(
            params.DataAudit,
            {"found": found, "class_counts": found},
            {"examples_by_grade": photograph},
            n_images=3,
        )
        fabricated.stage(
            params.HeatmapAnalysis, {"localisation_display": long, "heat_display": wide}, {"layers": drawing}
        )
        yield report.write("smoke")
        assert paths.results() == base / "results"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def shown(page, tab):
    """The page, freshly opened at 1280 pixels; the console must be silent and nothing fetched, whatever the test does."""
    tab.problems.clear()
    tab.requests.clear()
    tab.open(page)
    yield tab
    assert tab.problems == []
    assert [one for one in tab.requests if not one.startswith(("data:", "blob:", page.as_uri()))] == []


def column(tab: browser.Page, table: str, place: int) -> list[str]:
    """Texts of a column, as they stand."""
    return tab.run(
        f"[...document.querySelectorAll({table!r} + ' tbody tr')].map((row) => row.cells[{place}].textContent)"
    )


CAPTION = next(
    caption
    for section in registry.sections()
    for _, name, caption in section.show
    if (section.notebook, name) == (params.HeatmapAnalysis.notebook, "localisation_display")
)
LONG = f"table[aria-label^={json.dumps(CAPTION[:40])}]"
"""Selector of the long table."""


def test_every_link_and_image_resolves(shown, page):
    ids = set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))
    links = shown.run("[...document.querySelectorAll('a[href]')].map((one) => one.getAttribute('href'))")
    assert len(links) > 10
    lost = [
        one
        for one in links
        if not (one[1:] in ids if one.startswith("#") else (page.parent / one).resolve().is_file())
    ]
    assert lost == []
    images = shown.run(
        "Promise.all([...document.querySelectorAll('.enlarge img')].map((one) => one.decode().then(() => one.naturalWidth)))"
    )
    assert len(images) == 2
    assert min(images) > 0


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(shown, width):
    shown.resize(width)
    shown.run("new Promise((done) => setTimeout(done, 250))")
    for part in ("html", ".grid"):
        over = f"[...document.querySelectorAll('{part}')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
        assert shown.run(over) == 0
    outside = "[...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML.slice(0, 99))"
    assert shown.run(outside) == []
    stacked = shown.run("[...document.querySelectorAll('.stacked table')].length")
    assert stacked >= (1 if width == 1280 else 4), "the wide one at 1280, nearly all at 400"
    assert shown.run("document.querySelector('.stacked td').dataset.label"), (
        "a card says what each of its lines is"
    )


def test_the_verdict_and_its_reason_are_seen_at_once(shown):
    right = "Math.max(...[...document.querySelectorAll('.ledger th')].map((one) => one.getBoundingClientRect().right))"
    assert shown.run(right) <= 1280
    assert shown.run("document.querySelector('.ledger').getBoundingClientRect().top") < 900, (
        "without scrolling"
    )
    assert column(shown, ".ledger", 0) == [
        "reproduced",
        "inconclusive",
        "not reproduced",
        "not reproduced",
        "not testable here",
        "not testable here",
    ]


def test_a_table_sorts_on_click_and_by_the_keyboard(shown):
    def until(place: int, first: str) -> list[str]:
        """Sorting takes a moment; the column then begins with a text."""
        cell = f"document.querySelector({json.dumps(LONG)}).tBodies[0].rows[0].cells[{place}].textContent"
        shown.wait(f"{cell}.startsWith({json.dumps(first)})")
        return column(shown, LONG, place)

    assert column(shown, LONG, 4)[0].startswith("-2.0")
    shown.click(f"{LONG} th", 3)
    shown.click(f"{LONG} th", 4)
    shown.wait(
        f"document.querySelectorAll({json.dumps(LONG + ' th')})[4].getAttribute('aria-sort') === 'ascending'"
    )
    shown.click(f"{LONG} th", 4)
    falling = [float(text.split(" ")[0]) for text in until(4, "+1.9")]
    assert falling == sorted(falling, reverse=True), "the number counts, not its text"
    shown.run(f"document.querySelectorAll({json.dumps(LONG + ' th .dt-column-order')})[3].focus()")
    shown.press("Enter", 13)
    assert [int(text) for text in until(3, "0")] == list(range(25))
    assert (
        shown.run(f"document.querySelectorAll({json.dumps(LONG + ' th')})[3].getAttribute('aria-sort')")
        == "ascending"
    )


def test_a_table_is_filtered_by_typing(shown):
    assert len(column(shown, LONG, 0)) == 25, "the first page"
    shown.run(
        f"document.querySelector({json.dumps(LONG)}).closest('.dt-container').querySelector('input').focus()"
    )
    shown.type("HE")
    shown.wait(f"document.querySelector({json.dumps(LONG)}).tBodies[0].rows.length === {ROWS // 4}")
    assert column(shown, LONG, 1) == ["HE"] * (ROWS // 4)
    shown.type("X")
    shown.wait(f"document.querySelector({json.dumps(LONG)}).tBodies[0].rows.length === 1")
    assert column(shown, LONG, 0) == ["No row fits the filter."]


def test_the_ledger_shows_one_verdict(shown):
    shown.click(".chips button[data-verdict='not reproduced']")
    assert column(shown, ".ledger", 0) == ["not reproduced", "not reproduced"]
    shown.click(".chips button[data-verdict='']")
    assert len(column(shown, ".ledger", 0)) == len(ledger())


def test_a_figure_opens_large_and_the_keyboard_closes_it(shown):
    small = shown.run("document.querySelectorAll('.enlarge img')[1].getBoundingClientRect().width")
    shown.click(".enlarge", 1)
    shown.wait("document.querySelector('#large').open && document.querySelector('#large img').complete")
    assert shown.run("document.querySelector('#large img').getBoundingClientRect().width") > 1.5 * small
    assert shown.run("document.querySelector('#large p').textContent") == shown.run(
        "document.querySelectorAll('.enlarge img')[1].alt"
    )
    shown.press("ArrowRight", 39)
    assert shown.run(
        "document.querySelector('#large img').src === document.querySelectorAll('.enlarge img')[0].src"
    )
    shown.press("Escape", 27)
    shown.wait("!document.querySelector('#large').open")
    shown.wait("document.activeElement === document.querySelectorAll('.enlarge')[0]")


def test_dark_and_light_follow_the_system_or_the_button(shown):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert shown.run(ground) == "rgb(255, 255, 255)"
    shown.scheme("dark")
    dark = shown.run(ground)
    assert dark != "rgb(255, 255, 255)"
    shown.click("#theme")
    assert shown.run("document.querySelector('#theme').textContent") == "Theme: light"
    assert shown.run(ground) == "rgb(255, 255, 255)"
    shown.scheme("light")
    shown.click("#theme")
    assert shown.run(ground) == dark
    shown.click("#theme")
    assert shown.run("document.querySelector('#theme').textContent") == "Theme: system"


def test_the_page_alone_has_no_link_to_what_is_not_there(shown, page, tmp_path):
    alone = shutil.copy(page, tmp_path / "from a colleague.html")
    shown.requests.clear()
    shown.open(tmp_path / "from a colleague.html")
    assert shown.run(
        "[...document.querySelectorAll('a')].every((one) => one.getAttribute('href').startsWith('#'))"
    )
    assert shown.run("document.body.textContent.includes('with code')")
    assert len(column(shown, ".ledger", 0)) == len(ledger())
    shown.requests[:] = [one for one in shown.requests if "colleague" not in one]
    assert alone.stat().st_size < 1.5e6


def test_all_rows_are_printed(shown, tmp_path):
    shown.run("dispatchEvent(new Event('beforeprint'))")
    assert len(column(shown, LONG, 0)) == ROWS
    shown.run("dispatchEvent(new Event('afterprint'))")
    assert len(column(shown, LONG, 0)) == 25
    shown.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_printed_photograph_is_as_small_as_in_the_page(shown, page, tmp_path):
    """A PDF keeps a JPEG byte by byte. Unpacked to pixels, this one would take more than three times as much."""
    text = page.read_text(encoding="utf-8")
    [inside] = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)
    photograph = base64.b64decode(inside)
    shown.pdf(tmp_path / "report.pdf")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert photograph in printed
    assert printed.count(b"/DCTDecode") == 1
    assert 3 * len(photograph) < 300 * 500 * 3
