"""The page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import made_provenance, made_results
from PIL import Image

from els.analysis.attribution import NETWORK
from els.analysis.comparison import Comparison
from els.analysis.report import page as page_module
from els.analysis.report.page import PAGE_LIMIT, write_comparison_page, write_page
from els.analysis.report.words import headline
from els.analysis.results import Results, TrainingConfig

DESKTOP, PHONE = (1280, 900), (390, 844)


@dataclass
class Tab:
    """A browser's page and what it had to complain of."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.querySelectorAll('.chart').length > 0")
        self.page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(c => c.querySelector('svg'))"
        )
        self.page.wait_for_function(
            "[...document.querySelectorAll('canvas:not([hidden])')].every(c => c.width > 1)"
        )

    def pixels(self, selector: str) -> np.ndarray:
        """A canvas as (h w 3)."""
        url = self.page.locator(selector).first.evaluate("c => c.toDataURL()")
        data = base64.b64decode(url.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
    if path is None:
        pytest.skip("needs the system's Chromium, which is not here (apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def tab(browser: object, request: pytest.FixtureRequest) -> Iterator[Tab]:
    yield from _tab(browser, request.param)


@pytest.fixture
def desktop(browser: object) -> Iterator[Tab]:
    yield from _tab(browser, DESKTOP)


def _tab(browser: object, size: tuple[int, int]) -> Iterator[Tab]:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, has_touch=size == PHONE,
        is_mobile=size == PHONE,
        color_scheme="dark" if size == PHONE else "light",
    )  # fmt: skip
    tab = Tab(context.new_page())
    tab.page.on("console", lambda m: tab.complaints.append(m.text))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("request", lambda r: tab.requests.append(r.url))
    yield tab
    context.close()


@pytest.fixture(scope="module")
def results(analysed: Path) -> Results:
    return Results.load(analysed)


@pytest.fixture(scope="module")
def path(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(results, path)
    return path


def data_of(path: Path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>',
                         path.read_text(), re.DOTALL)  # fmt: skip
    return json.loads(text)


def test_it_opens_from_disk_with_nothing_amiss_and_nothing_fetched(
    tab: Tab, path: Path, results: Results
) -> None:
    tab.open(path)
    assert tab.complaints == []
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data", "blob"}
    assert [url for url in tab.requests if url.startswith("file:")] == [path.as_uri()]
    specs = data_of(path)["charts"]
    shown = sum(1 if name == "criterion" else len(some) for name, some in specs.items())
    assert tab.page.locator(".chart svg").count() == shown
    assert headline(results) in tab.page.locator(".headline").inner_text()
    assert path.stat().st_size <= PAGE_LIMIT


def test_the_sections_come_in_the_order_of_the_argument(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    assert desktop.page.locator("h2").all_inner_texts() == [
        "Network and machines, side by side", "Agreement in numbers", "Fitted scale", "Calibration",
        "Agreement by time", "Machine against ideal", "Along the path", "Mosaic explorer",
        "Novelty", "Local consistency", "Equivariance error", "How this was made",
    ]  # fmt: skip


def test_nothing_is_wider_than_the_screen(tab: Tab, path: Path, tmp_path: Path) -> None:
    tab.open(path)
    width = tab.page.viewport_size["width"]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    wide = tab.page.evaluate(
        """() => [...document.querySelectorAll('main *')]
            .filter(e => !e.closest('.scroll, pre, svg') && e.getClientRects().length)
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    shot = Image.open(io.BytesIO(tab.page.screenshot(full_page=True)))
    assert shot.width == width
    assert np.asarray(shot.convert("L")).std() > 10


def test_seeds_start_with_best_median_and_worst_and_can_be_sorted(
    desktop: Tab, path: Path, results: Results
) -> None:
    desktop.open(path)
    metrics, page = results.by_seed, desktop.page

    def shown() -> list[int]:
        return [
            int(row.get_attribute("data-seed")) for row in page.locator("#gallery tbody tr").all()
        ]

    def ranked(values: torch.Tensor, descending: bool) -> list[int]:
        return [results.seeds[i] for i in values.argsort(descending=descending)]

    first = [results.seeds[i] for i in results.order]
    best_first = ranked(metrics["boundary"]["pearson_r"], True)
    assert shown() == first
    assert first[:3] == [best_first[0], best_first[len(first) // 2], best_first[-1]]
    page.get_by_role("button", name="ideal", exact=True).click()
    assert shown() == ranked(metrics["ideal"]["pearson_r"], True)
    page.get_by_role("button", name="ideal", exact=True).press("Enter")
    assert shown() == ranked(metrics["ideal"]["pearson_r"], False)
    assert page.locator("th[aria-sort=ascending]").inner_text() == "ideal"
    page.locator("#gallery-metric").select_option("R2")
    assert shown() == ranked(metrics["ideal"]["R2"], False)
    page.locator("#gallery-first").click()
    assert shown() == first


def test_the_gallery_shows_what_was_drawn(desktop: Tab, path: Path, results: Results) -> None:
    desktop.open(path)
    want = page_module.to_uint8(results.machines["local"][results.order[1], 0]).numpy()
    got = desktop.pixels("#gallery tbody tr:nth-child(2) canvas[aria-label^='local']")
    assert np.array_equal(got[..., 0], want)


def test_the_slider_walks_through_the_path(tab: Tab, path: Path, results: Results) -> None:
    tab.open(path)
    page, slider = tab.page, tab.page.locator("#walk-t")
    last = len(results.t) - 1
    seen = []
    for i in range(last + 1):
        slider.fill(str(i))
        seed = results.order[0]
        want = results.attribution.paths[NETWORK][i, seed, 0].numpy()
        page.wait_for_function(
            f"document.getElementById('walk-now').textContent.includes('t = {results.t[i]:.2f}')"
        )
        got = tab.pixels("#walk canvas")
        assert np.array_equal(got[..., 0], want)
        mosaic = tab.pixels("#walk figure:nth-child(3) canvas")
        assert np.array_equal(
            mosaic[..., 0], results.attribution.tracing.mosaics["boundary"].pixels[i, seed, 0]
        )
        seen.append(page.locator("#walk-now").inner_text())
    assert len(set(seen)) == last + 1
    slider.press("Home")
    assert "t = 1.00" in page.locator("#walk-now").inner_text()
    page.locator("#walk-play").click()
    page.wait_for_function(f"document.getElementById('walk-t').value == '{last}'")
    assert tab.complaints == []


def test_pointing_at_a_pixel_shows_the_patch_that_won(
    tab: Tab, path: Path, results: Results
) -> None:
    tab.open(path)
    page, seed = tab.page, results.order[0]
    mosaic = results.attribution.tracing.mosaics["boundary"]
    training = results.attribution.tracing.training
    canvas = page.locator("#mosaic")
    canvas.scroll_into_view_if_needed()
    box, (h, w) = canvas.bounding_box(), results.noise.shape[2:]
    touch = page.viewport_size["width"] == PHONE[0]
    k = data_of(path)["explorer"]["seeds"][0]["sides"]["boundary"]["k"]
    assert k == results.scales["boundary"].at(results.t[-1])
    for row, column in ((3, 5), (8, 8), (h - 1, 0)):
        x = box["x"] + (column + 0.5) / w * box["width"]
        y = box["y"] + (row + 0.5) / h * box["height"]
        (page.touchscreen.tap if touch else page.mouse.move)(x, y)
        assert canvas.get_attribute("data-row") == str(row)
        _assert_shows(tab, mosaic.best[-1][seed][:, row, column], "best", training, k)
        _assert_shows(tab, mosaic.second[seed][:, row, column], "next", training, k)
        text = page.locator("#mosaic-text").inner_text()
        weight = float(re.search(r"weight ([0-9.e-]+?)[.;]? ", text)[1])
        assert weight == pytest.approx(float(mosaic.weight[-1][seed][row, column]), rel=0.01)
        share = float(mosaic.top_share[-1][seed][row, column])
        assert ("no single source" in text) == (share < 0.01)
        same = int((mosaic.best[-1][seed][0] == mosaic.best[-1][seed][0, row, column]).sum()) - 1
        assert f"{same} other pixel" in text
        _assert_orange(tab, mosaic.best[-1][seed][0], row, column)


def _assert_orange(tab: Tab, images: torch.Tensor, row: int, column: int) -> None:
    """Pixels with the image of the one pointed at are tinted, and no others."""
    drawn = tab.pixels("#mosaic").astype(int)[18::24, 18::24]  # a place in each without lines
    tinted = torch.from_numpy((drawn[..., 0] - drawn[..., 2]) > 40)
    same = images == images[row, column]
    same[row, column] = False
    for line in (row - 1, row, row + 1):  # where the window's own frame may be
        for cell in (column - 1, column, column + 1):
            if 0 <= line < len(same) and 0 <= cell < len(same):
                same[line, cell] = tinted[line, cell]
    assert torch.equal(tinted, same)


def _assert_shows(tab: Tab, want: torch.Tensor, name: str, training: object, k: int) -> None:
    image, row, column = want.tolist()
    shown = tab.page.locator(f"#{name}-image")
    found = [int(shown.get_attribute(f"data-{key}")) for key in ("image", "row", "column")]
    assert found == [image, row, column]
    tab.page.wait_for_function(f"document.getElementById('{name}-patch').width == {k}")
    tab.page.wait_for_timeout(50)
    at = training.indices.tolist().index(image)
    assert tab.pixels(f"#{name}-patch")[k // 2, k // 2, 0] == training.pixels[at, 0, row, column]


def test_arrow_keys_move_from_pixel_to_pixel(desktop: Tab, path: Path, results: Results) -> None:
    desktop.open(path)
    canvas, page = desktop.page.locator("#mosaic"), desktop.page
    page.locator("#mosaic-side").select_option(NETWORK)
    page.locator("#mosaic-seed").select_option("2")
    canvas.focus()
    at = [int(canvas.get_attribute(f"data-{key}")) for key in ("row", "column")]
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert canvas.get_attribute("data-row") == str(at[0] - 1)
    assert canvas.get_attribute("data-column") == str(at[1] + 1)
    best = results.attribution.tracing.mosaics[NETWORK].best[-1][results.order[2]]
    want = best[:, at[0] - 1, at[1] + 1].tolist()
    shown = page.locator("#best-image")
    assert [int(shown.get_attribute(f"data-{k}")) for k in ("image", "row", "column")] == want
    before = desktop.pixels("#mosaic")
    page.locator("#mosaic-view").select_option("image")
    page.wait_for_timeout(100)
    assert not np.array_equal(desktop.pixels("#mosaic"), before)


def test_everything_can_be_reached_with_the_keyboard(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    reached = set()
    for _ in range(60):
        desktop.page.keyboard.press("Tab")
        reached.add(desktop.page.evaluate("document.activeElement.id || ''"))
    assert {"gallery-metric", "gallery-first", "walk-seed", "walk-play", "walk-t", "mosaic",
            "mosaic-seed", "mosaic-side", "mosaic-view", "choose-criterion"} <= reached  # fmt: skip


def test_charts_follow_a_change_of_the_colour_scheme(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    page = desktop.page
    label = "document.querySelector('#chart-by_t svg .role-axis-label text').getAttribute('fill')"
    light, paper = page.evaluate(label), "getComputedStyle(document.body).backgroundColor"
    white = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{label} !== '{light}'")
    assert page.evaluate(paper) != white


def test_a_large_analysis_shows_fewer_seeds_and_says_so(
    results: Results, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = data_of(path)
    assert len(full["gallery"]["rows"]) == len(results.seeds)
    monkeypatch.setattr(page_module, "PAGE_LIMIT", path.stat().st_size - 1)
    monkeypatch.setattr(page_module, "_SEEDS", ((None, 8), (3, 1)))
    write_page(results, tmp_path / "report.html")
    less = data_of(tmp_path / "report.html")
    assert [row["note"] for row in less["gallery"]["rows"]] == ["best", "median", "worst"]
    assert len(less["explorer"]["seeds"]) == len(less["walk"]["seeds"]) == 1
    assert "3 of 5 seeds are shown" in (tmp_path / "report.html").read_text()


def test_names_are_text_and_nothing_else(desktop: Tab, results: Results, tmp_path: Path) -> None:
    hostile = '<img src=x onerror=console.error(1)><!--<script>"&'
    n = len(results.seeds)
    training = replace(
        results.attribution.tracing.training, classes=(hostile,) * 10,
        labels=torch.zeros(len(results.attribution.tracing.training.indices), dtype=torch.int64),
    )  # fmt: skip
    provenance = made_provenance(
        run=hostile, training=TrainingConfig(hostile, hostile),
        network=replace(results.provenance.network, name=hostile),
    )  # fmt: skip
    tracing = replace(results.attribution.tracing, training=training)
    named = replace(
        results, labels=torch.zeros(n, dtype=torch.int64), provenance=provenance,
        attribution=replace(results.attribution, tracing=tracing),
    )  # fmt: skip
    write_page(named, tmp_path / "report.html")
    desktop.open(tmp_path / "report.html")
    assert desktop.complaints == []
    assert desktop.page.locator("main img").count() == 0
    assert hostile in desktop.page.locator("h1").inner_text()
    assert hostile in desktop.page.locator("#mosaic-seed option").first.inner_text()
    assert hostile in desktop.page.locator("#gallery").inner_text()


@pytest.mark.parametrize("kinds", [("local", "equivariant", "boundary"), ("wiener", "ideal")])
def test_headings_name_what_the_charts_show(kinds: tuple[str, ...], tmp_path: Path) -> None:
    made = made_results(kinds)
    write_page(made, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    other = "ideal" if "ideal" in kinds else kinds[1]
    assert f"<h2>Machine against {other}</h2>" in text
    assert f"pearson_r of {other}" in json.dumps(data_of(tmp_path / "report.html")["charts"])
    assert ("One number, its size" in text) == (kinds[0] == "local")


def test_no_page_is_larger_than_the_limit(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_page(results, tmp_path / "whole.html")
    monkeypatch.setattr(page_module, "PAGE_LIMIT", 1_300_000)
    pixels = torch.randint(256, (1200, 1, 32, 32), dtype=torch.uint8)
    large = replace(results.attribution.tracing.training, indices=torch.arange(1200), pixels=pixels,
                    labels=None)  # fmt: skip
    tracing = replace(results.attribution.tracing, training=large)
    attribution = replace(results.attribution, tracing=tracing)
    write_page(replace(results, attribution=attribution), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size <= 1_300_000
    assert "would make this page too large" in (tmp_path / "report.html").read_text()


def test_results_without_mosaics_make_a_page_that_says_why(
    desktop: Tab, results: Results, tmp_path: Path
) -> None:
    old = replace(results, attribution=None, probes=None, data_scales=None)
    write_page(old, tmp_path / "report.html")
    desktop.open(tmp_path / "report.html")
    assert desktop.complaints == []
    assert "--force" in desktop.page.locator("main").inner_text()
    assert desktop.page.locator("#mosaic").count() == 0


def test_results_without_patches_say_so(desktop: Tab, results: Results, tmp_path: Path) -> None:
    attribution = replace(
        results.attribution, tracing=None,
        paths={NETWORK: results.attribution.paths[NETWORK],
               "ideal": results.attribution.paths["boundary"]},
    )  # fmt: skip
    alone = replace(
        results, attribution=attribution, scales={}, machines={"ideal": results.machines["ideal"]},
        by_t={"ideal": results.by_t["ideal"]}, data_scales=None,
    )  # fmt: skip
    write_page(alone, tmp_path / "report.html")
    desktop.open(tmp_path / "report.html")
    assert desktop.complaints == []
    assert "None of the machines answers with patches" in desktop.page.locator("main").inner_text()
    assert desktop.page.locator("#walk canvas").count() == 2


def test_a_comparison_has_a_page_of_its_own(tab: Tab, results: Results, tmp_path: Path) -> None:
    other = replace(results, provenance=replace(results.provenance, run="another & more"))
    path = tmp_path / "report.html"
    write_comparison_page(Comparison((results, other)), path)
    tab.open(path)
    assert tab.complaints == []
    assert tab.page.locator(".chart svg").count() == 2
    assert tab.page.locator("table").first.locator("tbody tr").count() == 2
    assert "another & more" in tab.page.locator("table").first.inner_text()
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
