"""The page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import vega
from made_results import made_provenance, made_results
from PIL import Image
from studies import small_study, write_checkpoint

from els.analysis.attribution import NETWORK
from els.analysis.comparison import Comparison
from els.analysis.options import Compute, Protocol, Source
from els.analysis.parsers import build_parser
from els.analysis.report import page as page_module
from els.analysis.report.findings import findings, plain_sentence
from els.analysis.report.page import PAGE_LIMIT, write_comparison_page, write_page
from els.analysis.results import FileId, Results, TrainingConfig
from els.analysis.study import load_study
from els.images import to_uint8
from els.machines import MACHINES, with_paper_name

DESKTOP, PHONE = (1280, 900), (390, 844)


def until(page: object, expression: str, seconds: float = 30) -> None:
    """Wait until an expression is true; the page's own policy forbids that it evaluates any."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(50)


@dataclass
class Tab:
    """A browser's page and what it had to complain of."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())
        until(self.page, "document.querySelectorAll('.chart').length > 0")
        until(
            self.page, "[...document.querySelectorAll('.chart')].every(c => c.querySelector('svg'))"
        )
        until(
            self.page,
            "[...document.querySelectorAll('canvas:not([hidden])')].every(c => c.width > 1)",
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
    told = tab.page.locator(".findings li").all_inner_texts()
    assert told == list(findings(results).values())
    assert path.stat().st_size <= PAGE_LIMIT


def test_the_sections_come_in_the_order_of_the_argument(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    assert desktop.page.locator("h2").all_inner_texts() == [
        "Machine against machine", "Agreement in numbers", "Network and machines, side by side",
        "Where a sample comes from", "Fitted scale", "Calibration", "Agreement by time",
        "Machine against ideal", "Novelty", "Copies", "Local consistency", "Equivariance error",
        "What this page shows", "How this was made",
    ]  # fmt: skip


def test_the_first_screen_moves_from_noise_to_network_theory_and_memoriser(
    tab: Tab, path: Path, results: Results
) -> None:
    tab.open(path)
    page, last = tab.page, len(results.t) - 1
    assert page.locator("#hero .heading").all_inner_texts() == [
        "noise", "network", "theory\nboundary (ELS)", "memoriser\nideal (IS)"
    ]  # fmt: skip
    assert plain_sentence(results) in page.locator(".plainly").inner_text()
    boxes = [canvas.bounding_box() for canvas in page.locator("#hero canvas").all()]
    assert len(boxes) == 12  # three rows of four, side by side on any screen
    for row in (boxes[:4], boxes[4:8], boxes[8:]):
        assert len({round(box["y"]) for box in row}) == 1
        assert len({round(box["x"]) for box in row}) == 4
    until(page, f"document.getElementById('hero-t').value == '{last}'")  # it has played
    page.locator("#hero-t").fill("1")
    page.wait_for_timeout(50)
    for row, seed in enumerate(results.order[:3]):
        for column, side in enumerate((NETWORK, "boundary", "ideal")):
            canvas = page.locator("#hero canvas").nth(4 * row + 1 + column)
            url = canvas.evaluate("c => c.toDataURL()")
            drawn = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
            want = results.attribution.paths[side][1, seed, 0].numpy()
            assert np.array_equal(np.asarray(drawn.convert("RGB"))[..., 0], want)


def test_contents_lead_to_every_section(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    links = desktop.page.locator("#contents a").all()
    headings = desktop.page.locator("main section h2").all_inner_texts()
    assert [link.inner_text() for link in links] == headings
    for link in links:
        assert desktop.page.locator(link.get_attribute("href")).count() == 1


def test_machines_against_each_other_are_a_table(
    desktop: Tab, path: Path, results: Results
) -> None:
    desktop.open(path)
    rows = desktop.page.locator("#against tbody tr").all_inner_texts()
    assert len(rows) == len(results.pairs)
    for row, pair in zip(rows, results.pairs, strict=True):
        assert row.index(pair.machine) < row.index(pair.other)
        assert f"{pair.wins:.0%}" in row
        assert ("not distinguishable" in row) == (not pair.distinguishable)


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
    assert page.locator("th[aria-sort=ascending]").get_attribute("data-name") == "ideal"
    page.locator("#gallery-metric").select_option("R2")
    assert shown() == ranked(metrics["ideal"]["R2"], False)
    page.locator("#gallery-first").click()
    assert shown() == first


def test_the_gallery_shows_what_was_drawn(desktop: Tab, path: Path, results: Results) -> None:
    desktop.open(path)
    want = to_uint8(results.machines["local"][results.order[1], 0]).numpy()
    got = desktop.pixels("#gallery tbody tr:nth-child(2) canvas[aria-label^='local']")
    assert np.array_equal(got[..., 0], want)


def test_the_gallery_shows_differences_when_it_is_asked(
    desktop: Tab, path: Path, results: Results
) -> None:
    desktop.open(path)
    desktop.page.locator("#gallery-differences").check()
    seed = results.order[0]
    machine, network = (
        to_uint8(x[seed, 0]).numpy().astype(int)
        for x in (results.machines["local"], results.network[results.network_steps])
    )
    desktop.page.wait_for_timeout(100)
    got = desktop.pixels("#gallery tbody tr canvas[aria-label^='local']")[..., 0]
    assert np.abs(got - (128 + (machine - network) / 2)).max() <= 1
    drawn = desktop.pixels("#gallery tbody tr canvas[aria-label^='network']")[..., 0]
    assert np.array_equal(drawn, network)


def test_the_contents_are_folded_on_a_phone(tab: Tab, path: Path) -> None:
    tab.open(path)
    phone = tab.page.viewport_size["width"] == PHONE[0]
    assert (tab.page.locator("#contents").get_attribute("open") is None) == phone
    if phone:
        tab.page.locator("#contents summary").tap()
    tab.page.get_by_role("link", name="Novelty").click()
    until(tab.page, "location.hash === '#novelty'")
    assert 0 <= tab.page.locator("#novelty").bounding_box()["y"] < 200


def test_nothing_moves_by_itself_where_motion_is_unwanted(
    browser: object, path: Path, results: Results
) -> None:
    context = browser.new_context(reduced_motion="reduce")
    tab = Tab(context.new_page())
    tab.open(path)
    tab.page.wait_for_timeout(600)
    assert tab.page.locator("#hero-play").inner_text() == "Play"
    assert tab.page.locator("#hero-t").input_value() == str(len(results.t) - 1)
    context.close()


def test_every_column_is_in_sight(tab: Tab, path: Path, results: Results) -> None:
    tab.open(path)
    width = tab.page.viewport_size["width"]
    for table in ("#gallery", "#against table", "#numbers table"):
        for cell in tab.page.locator(f"{table} tbody tr").first.locator("td, th").all():
            box = cell.bounding_box()
            assert box is None or 0 <= box["x"] <= box["x"] + box["width"] <= width + 1
    first = tab.page.locator("#gallery tbody tr").first.locator("canvas")
    assert first.count() == 2 + len(results.machines)


def test_the_pictures_of_many_machines_wrap(desktop: Tab, tmp_path: Path) -> None:
    kinds = ("boundary", *(kind for kind in MACHINES if kind != "boundary"))
    write_page(made_results(kinds), tmp_path / "report.html")
    desktop.open(tmp_path / "report.html")
    cells = desktop.page.locator("#gallery tbody tr").first.locator("td").all()
    assert len(cells) == 2 + len(kinds)
    for cell in cells:
        box = cell.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= DESKTOP[0]
    assert [cell.get_attribute("data-name") for cell in cells[2:]] == [
        with_paper_name(kind) for kind in kinds
    ]


def test_choosing_the_network_goes_to_the_step_that_its_mosaic_is_of(
    desktop: Tab, path: Path, results: Results
) -> None:
    desktop.open(path)
    page, last = desktop.page, len(results.t) - 1
    page.locator("#walk-t").fill("1")
    page.locator("#mosaic-side").select_option(NETWORK)
    until(page, f"document.getElementById('mosaic').dataset.step == '{last}'")
    assert page.locator("#walk-t").input_value() == str(last)
    assert f"t = {results.t[-1]:.2f}" in page.locator("#walk-now").inner_text()
    assert page.locator("#what-mean").inner_text() == "network's answer, at this t"


def test_the_slider_walks_through_the_path(tab: Tab, path: Path, results: Results) -> None:
    tab.open(path)
    page, slider = tab.page, tab.page.locator("#walk-t")
    page.locator("#seed").select_option("0")
    last = len(results.t) - 1
    seen = []
    for i in range(last + 1):
        slider.fill(str(i))
        seed = results.order[0]
        want = results.attribution.paths[NETWORK][i, seed, 0].numpy()
        until(
            page,
            f"document.getElementById('walk-now').textContent.includes('t = {results.t[i]:.2f}')",
        )
        got = tab.pixels("#walk canvas")
        assert np.array_equal(got[..., 0], want)
        mosaic = tab.pixels("#walk figure:nth-child(4) canvas")
        assert np.array_equal(
            mosaic[..., 0], results.attribution.tracing.mosaics["boundary"].pixels[i, seed, 0]
        )
        seen.append(page.locator("#walk-now").inner_text())
    assert len(set(seen)) == last + 1
    slider.press("Home")
    assert "t = 1.00" in page.locator("#walk-now").inner_text()
    page.locator("#walk-play").click()
    until(page, f"document.getElementById('walk-t').value == '{last}'")
    assert tab.complaints == []


def _mosaic_of(results: Results, side: str, seed: int, step: int) -> dict[str, torch.Tensor]:
    """What the page should know of the sample at a step, each (h w)."""
    mosaic = results.attribution.tracing.mosaics[side]
    at = step - (len(results.t) - len(mosaic.t))
    image, row, column = mosaic.best[at, seed]
    return {"image": image, "row": row, "column": column, "weight": mosaic.weight[at, seed],
            "effective": mosaic.effective_size[at, seed]}  # fmt: skip


def _assert_told(tab: Tab, results: Results, side: str, seed: int, step: int) -> None:
    """The words, the source and the winning patch are those of the pixel that is pointed at."""
    canvas, source = tab.page.locator("#mosaic"), tab.page.locator("#source")
    at = tuple(int(canvas.get_attribute(f"data-{name}")) for name in ("row", "column"))
    want = {name: values[at] for name, values in _mosaic_of(results, side, seed, step).items()}
    for name in ("image", "row", "column"):
        assert int(source.get_attribute(f"data-{name}")) == int(want[name])
    text, weight = tab.page.locator("#mosaic-text").inner_text(), float(want["weight"])
    assert ("copied from" in text) == (weight > 0.5)
    assert ("mostly from" in text) == (0.1 < weight <= 0.5)
    assert ("an average of" in text) == (weight <= 0.1)
    if weight <= 0.1:
        assert f"{round(float(want['effective'])):,} patches" in text
    training = results.attribution.tracing.training
    slot = training.indices.tolist().index(int(want["image"]))
    pixel = int(training.pixels[slot, 0, int(want["row"]), int(want["column"])])
    assert tab.page.locator("#value-winner").inner_text() == f"{pixel / 255:.2f}"
    k = results.scales["boundary"].at(results.t[step])
    winner = tab.pixels("#patch-winner")
    assert winner.shape[:2] == (k, k)
    assert winner[k // 2, k // 2, 0] == pixel
    drawn = results.attribution.paths[side][:, seed, 0, at[0], at[1]]
    assert tab.page.locator("#value-mean").inner_text() == f"{int(drawn[step]) / 255:.2f}"
    assert tab.page.locator("#value-sample").inner_text() == f"{int(drawn[-1]) / 255:.2f}"


def _choose(tab: Tab, *, seed: int, step: int, side: str = "boundary") -> None:
    tab.page.locator("#mosaic-side").select_option(side)
    tab.page.locator("#seed").select_option(str(seed))
    tab.page.locator("#walk-t").fill(str(step))
    until(tab.page, f"document.getElementById('mosaic').dataset.step == '{step}'")
    tab.page.wait_for_timeout(100)


def test_pointing_at_a_pixel_shows_the_patch_that_won_at_any_t(
    tab: Tab, path: Path, results: Results
) -> None:
    tab.open(path)
    page, (h, w) = tab.page, results.noise.shape[2:]
    canvas = page.locator("#mosaic")
    touch = page.viewport_size["width"] == PHONE[0]
    for step in (len(results.t) - 1, 2):
        _choose(tab, seed=0, step=step)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        for row, column in ((3, 5), (8, 8), (h - 1, 0)):
            x = box["x"] + (column + 0.5) / w * box["width"]
            y = box["y"] + (row + 0.5) / h * box["height"]
            (page.touchscreen.tap if touch else page.mouse.move)(x, y)
            until(
                page,
                "(([r, c]) => document.getElementById('mosaic').dataset.row == r && "
                f"document.getElementById('mosaic').dataset.column == c)([{row}, {column}])",
            )
            _assert_told(tab, results, "boundary", results.order[0], step)
    assert tab.complaints == []


def test_the_winning_patch_is_pasted_in_its_place_with_a_line_to_its_source(
    desktop: Tab, path: Path, results: Results
) -> None:
    desktop.open(path)
    step, (h, w) = 2, results.noise.shape[2:]
    _choose(desktop, seed=0, step=step)
    canvas, page = desktop.page.locator("#mosaic"), desktop.page
    canvas.focus()
    found = _mosaic_of(results, "boundary", results.order[0], step)
    at = [int(canvas.get_attribute(f"data-{name}")) for name in ("row", "column")]
    image, row, column = (int(found[name][tuple(at)]) for name in ("image", "row", "column"))
    training = results.attribution.tracing.training
    pixels = training.pixels[training.indices.tolist().index(image), 0]
    drawn, r = desktop.pixels("#mosaic"), results.scales["boundary"].at(results.t[step]) // 2
    checked = 0
    for dy in range(-r + 1, r):  # the outermost lie under the frame
        for dx in range(-r + 1, r):
            y, x = at[0] + dy, at[1] + dx
            inside = 0 <= row + dy < h and 0 <= column + dx < w and 0 <= y < h and 0 <= x < w
            if inside and (dy or dx):
                assert drawn[24 * y + 12, 24 * x + 12, 0] == pixels[row + dy, column + dx]
                checked += 1
    assert checked
    line = page.locator("#link line")
    ends = [float(line.get_attribute(name)) for name in ("x1", "y1", "x2", "y2")]
    frame = page.locator("#explorer").bounding_box()
    for name, place, (x, y) in (("#mosaic", at, ends[:2]), ("#source", (row, column), ends[2:])):
        box = page.locator(name).bounding_box()
        assert x + frame["x"] == pytest.approx(
            box["x"] + (place[1] + 0.5) / w * box["width"], abs=1
        )
        assert y + frame["y"] == pytest.approx(
            box["y"] + (place[0] + 0.5) / h * box["height"], abs=1
        )


def test_keys_move_keep_and_let_go(desktop: Tab, path: Path, results: Results) -> None:
    desktop.open(path)
    canvas, page, last = desktop.page.locator("#mosaic"), desktop.page, len(results.t) - 1
    _choose(desktop, seed=2, step=last, side=NETWORK)
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    at = [int(canvas.get_attribute(f"data-{key}")) for key in ("row", "column")]
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        page.wait_for_timeout(30)
    moved = [str(at[0] - 1), str(at[1] + 1)]
    assert [canvas.get_attribute(f"data-{key}") for key in ("row", "column")] == moved
    _assert_told(desktop, results, NETWORK, results.order[2], last)
    page.keyboard.press("Enter")
    assert canvas.get_attribute("data-pinned") == "true"
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.wait_for_timeout(50)
    assert [canvas.get_attribute(f"data-{key}") for key in ("row", "column")] == moved
    page.keyboard.press("Escape")
    page.mouse.move(box["x"] + 6, box["y"] + 6)
    until(page, "document.getElementById('mosaic').dataset.row == '0'")
    before = desktop.pixels("#mosaic")
    page.locator("#mosaic-view").select_option("image")
    page.wait_for_timeout(100)
    assert not np.array_equal(desktop.pixels("#mosaic"), before)
    page.locator("#walk-t").fill("0")  # where the network has no mosaic
    until(page, "document.getElementById('mosaic-text').innerText.includes('alone')")


def test_the_images_with_most_weight_have_their_colours_and_light_up(
    desktop: Tab, path: Path, results: Results
) -> None:
    desktop.open(path)
    _choose(desktop, seed=0, step=2)
    found = _mosaic_of(results, "boundary", results.order[0], 2)
    images = found["image"].flatten().tolist()
    weight: Counter[int] = Counter()
    for image, share in zip(images, found["weight"].flatten().tolist(), strict=True):
        weight[image] += share
    largest = [(image, images.count(image)) for image, _ in weight.most_common(8)]
    texts = desktop.page.locator("#pieces small").all_inner_texts()
    assert texts == [f"{pixels} px" for _, pixels in largest]
    before = desktop.pixels("#mosaic")
    desktop.page.locator("#pieces button").first.hover()
    assert not np.array_equal(desktop.pixels("#mosaic"), before)
    desktop.page.mouse.move(0, 0)
    assert np.array_equal(desktop.pixels("#mosaic"), before)


def test_it_opens_where_it_tells_most(desktop: Tab, path: Path, results: Results) -> None:
    opens = data_of(path)["mosaic"]["opens"]
    desktop.open(path)
    until(desktop.page, "document.getElementById('mosaic').dataset.row")
    assert desktop.page.locator("#seed").input_value() == str(opens["seed"])
    assert desktop.page.locator("#walk-t").input_value() == str(opens["step"])
    row, column = divmod(opens["pixel"], results.noise.shape[3])
    canvas = desktop.page.locator("#mosaic")
    at = [canvas.get_attribute(f"data-{key}") for key in ("row", "column")]
    assert at == [str(row), str(column)]


def test_a_seed_of_the_gallery_is_the_one_that_is_explored(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    page = desktop.page
    page.locator("#gallery tbody tr").nth(2).locator("th button").click()
    assert page.locator("#seed").input_value() == "2"
    pressed = page.locator("button.seed[aria-pressed=true]")
    worst = data_of(path)["path"]["seeds"][2]["seed"]
    assert {int(one.get_attribute("data-seed")) for one in pressed.all()} == {worst}
    page.locator("#hero button.seed").first.press("Enter")
    assert page.locator("#seed").input_value() == "0"


def test_everything_can_be_reached_with_the_keyboard(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    reached = set()
    for _ in range(100):
        desktop.page.keyboard.press("Tab")
        reached.add(desktop.page.evaluate("document.activeElement.id || ''"))
    assert {"hero-play", "hero-t", "gallery-metric", "gallery-first", "seed", "walk-play", "walk-t",
            "mosaic", "mosaic-side", "mosaic-view", "choose-criterion"} <= reached  # fmt: skip


def test_charts_follow_a_change_of_the_colour_scheme(desktop: Tab, path: Path) -> None:
    desktop.open(path)
    page = desktop.page
    label = "document.querySelector('#chart-by_t svg .role-axis-label text').getAttribute('fill')"
    light, paper = page.evaluate(label), "getComputedStyle(document.body).backgroundColor"
    white = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    until(page, f"{label} !== '{light}'")
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
    assert len(less["mosaic"]["seeds"]) == len(less["path"]["seeds"]) == 1
    assert "3 of 5 seeds are shown" in (tmp_path / "report.html").read_text()


def test_a_script_that_is_not_the_pages_own_does_not_run(desktop: Tab, tmp_path: Path) -> None:
    """Behind the escaping of names there is a second wall."""
    path = tmp_path / "report.html"
    write_page(made_results(("boundary", "local", "ideal")), path)
    desktop.open(path)
    assert desktop.complaints == []
    planted = (
        "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
        "<script type=module>window.ran = 3</script><iframe srcdoc='x'></iframe>"
        "<a href='javascript:window.ran = 4' id=planted>link</a>"
    )
    changed = path.with_name("changed.html")
    changed.write_text(path.read_text().replace("<main>", f"<main>{planted}"))
    desktop.open(changed)
    desktop.page.locator("#planted").click()
    assert desktop.page.evaluate("window.ran") is None
    assert len([said for said in desktop.complaints if "Content Security Policy" in said]) >= 4
    changed.write_text(changed.read_text().replace("Content-Security-Policy", "none"))
    desktop.open(changed)
    assert desktop.page.evaluate("window.ran") is not None  # without the wall


def test_the_library_of_charts_is_as_it_was_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vega.PATH.read_text(encoding="utf-8").startswith("/* Vega ")
    if vega.versions() in vega.PATH.read_text(encoding="utf-8"):
        assert vega.PATH.read_text(encoding="utf-8") == vega.made(), "python tests/vega.py"
    # And nothing bundles it while a page is written, which would start V8.
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    write_page(made_results(("boundary",)), tmp_path / "report.html")


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
    assert hostile in desktop.page.locator("#seed option").first.inner_text()
    assert hostile in desktop.page.locator("#gallery").inner_text()


@pytest.mark.parametrize("trained", [True, False])
def test_the_commands_make_it_again_from_what_they_trained(trained: bool, tmp_path: Path) -> None:
    protocol = Protocol(
        machines=["boundary", "ideal"],
        sizes=[3, 5],
        symmetries=["flip", "turns"],
        network_steps=[20, 150],
        tolerance=0.01,
        label=3,
        mosaic=False,
    )
    provenance = made_provenance(
        run="my $run",
        protocol=protocol,
        checkpoint=FileId("else where/net.pt", "0" * 64),
        training=TrainingConfig("runs/my $run/config.yaml", "") if trained else None,
    )
    path = tmp_path / "report.html"
    write_page(replace(made_results(("boundary", "ideal")), provenance=provenance), path)
    (text,) = re.findall(r"reproduce it:</p><pre>(.*?)</pre>", path.read_text(), re.DOTALL)
    *training, analysis = html.unescape(text).replace("\\\n", " ").splitlines()
    assert "--force" not in text
    assert len(training) == trained
    if trained:
        assert shlex.split(training[0])[2:] == [
            "fit",
            "--config",
            "runs/my $run/config.yaml",
            "--run.dir",
            "runs",
            "--run.name",
            "my $run_again",
        ]
    python, script, checkpoint, *options = shlex.split(analysis)
    assert checkpoint == ("runs/my $run_again" if trained else "else where/net.pt")
    parsed = (
        build_parser().parse_args(["run", "--checkpoint", checkpoint, *options]).as_dict()["run"]
    )
    assert Protocol(**{one.name: parsed[one.name] for one in fields(Protocol)}) == protocol
    assert parsed["name"] == (None if trained else "again")
    assert parsed["data_name"] == (None if trained else provenance.data.name)


@pytest.mark.parametrize(
    "said",
    [
        {"padding": "circular", "image_range": "unit", "image_size": 8},
        {"prediction": "v", "weights": "online", "image_size": 8},
        {"prediction": "x0", "image_size": 8},
    ],
)
def test_the_commands_read_a_checkpoint_from_elsewhere_as_it_was_read(
    said: dict, tmp_path: Path
) -> None:
    """What a state dict leaves open stands in no file: the commands have to say it."""
    own = torch.load(write_checkpoint(tmp_path / "own.ckpt"), weights_only=True)["state_dict"]
    weights = {name.removeprefix("net."): value for name, value in own.items()}
    where = tmp_path / "net.pt"
    torch.save({"ema": weights, "model": weights}, where)
    twin = tmp_path / "twin.pt"
    torch.save({name: 2 * value for name, value in weights.items()}, twin)
    source = {"data_name": "digits", "twin": [str(twin)], "self_check": "off", **said}
    if "weights" in said:  # which the twin does not have
        source["twin"] = []
    provenance = small_study(where, source=source).provenance
    path = tmp_path / "report.html"
    write_page(replace(made_results(("boundary", "ideal")), provenance=provenance), path)
    (text,) = re.findall(r"reproduce it:</p><pre>(.*?)</pre>", path.read_text(), re.DOTALL)
    given = shlex.split(html.unescape(text).replace("\\\n", " "))[2:]
    options = build_parser().parse_args(["run", "--checkpoint", *given]).as_dict()["run"]
    again = Source(
        **{one.name: options[one.name] for one in fields(Source)}
        | {"checkpoint": options["checkpoint"][0], "self_check": "off"}
    )
    protocol = Protocol(**{one.name: options[one.name] for one in fields(Protocol)})
    found = load_study(again, protocol, Compute(device="cpu"), run="again").provenance
    for name in ("network", "twins", "protocol", "checkpoint"):
        assert getattr(found, name) == getattr(provenance, name)
    assert replace(found.declared, assumed=()) == replace(provenance.declared, assumed=())


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
               "ideal": results.attribution.paths["ideal"]},
        novelty={side: one for side, one in results.attribution.novelty.items()
                 if side in (NETWORK, "ideal") or side not in MACHINES},
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
    path = tmp_path / "comparison" / "report.html"
    pages = [tmp_path / name / "analysis" / "report.html" for name in ("a", "b")]
    write_comparison_page(Comparison((results, other)), path, pages)
    tab.open(path)
    assert tab.complaints == []
    assert tab.page.locator(".chart svg").count() == 2
    table = tab.page.locator("#numbers table")
    assert table.locator("tbody tr").count() == 2
    assert "another & more" in table.inner_text()
    links = [link.get_attribute("href") for link in table.locator("a").all()]
    assert links == ["../a/analysis/report.html", "../b/analysis/report.html"]
    assert "equally well" in tab.page.locator(".plainly").inner_text()  # it is the same network
    assert tab.page.locator("#compared canvas").count() == 3 * 5
    want = to_uint8(results.network[results.network_steps][results.order[0], 0]).numpy()
    assert np.array_equal(tab.pixels("#compared canvas >> nth=1")[..., 0], want)
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_networks_of_other_shapes_are_compared_without_pictures(
    desktop: Tab, results: Results, tmp_path: Path
) -> None:
    other = replace(made_results(("boundary", "ideal")), provenance=made_provenance(run="small"))
    path = tmp_path / "report.html"
    write_comparison_page(Comparison((results, other)), path)
    desktop.open(path)
    assert desktop.complaints == []
    assert "images of other shapes" in desktop.page.locator("main").inner_text()
