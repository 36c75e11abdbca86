"""The report: what the file holds, and how it behaves in a browser."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bssim.errors import InputError
from bssim.experiments.report import write_report
from bssim.experiments.report.page import report_html
from bssim.experiments.sweeps import Results, expand, read_sweep_file, run_cell

pytest.importorskip("selenium", reason="the environment of vLLM has no browser")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

SWEEP = """
workloads: [trace1, trace3]
schedulers: [fcfs, dfs, blendserve]
engine: {preset: vllm, max_num_seqs: [64, 128]}
num_requests: 200
timeline: true
"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("report")
    file = folder / "demo.yaml"
    file.write_text(SWEEP)
    cells = expand(read_sweep_file(file))
    found = Results(folder / "demo")
    for cell in cells:
        found.save(cell, run_cell(cell, timeline=True))
    found.write_runs(cells)
    return found


def test_a_report_is_one_file_without_addresses_to_load_and_equal_each_time(
    results: Results,
) -> None:
    page = report_html(results)
    assert page == report_html(results)
    assert len(page) < 5e6
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", markup)
    assert "trace1" in page
    verdict = (results.folder / "summary.md").read_text().splitlines()[2]
    assert re.sub(r"`([^`]+)`", r"<code>\1</code>", verdict) in page


def test_names_from_a_sweep_cannot_become_markup(results: Results, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = tmp_path / "copy"
    shutil.copytree(results.folder, folder)
    csv = folder / "runs.csv"
    csv.write_text(csv.read_text().replace("trace1", evil))
    page = report_html(Results(folder))
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def test_settings_are_named_by_what_differs_and_equal_notes_appear_once(results: Results) -> None:
    page = report_html(results)
    assert "All: llama-3-8b on a100-80gb, vllm, sequential overlap.</p>" in page
    for own in ("max_num_seqs=64", "max_num_seqs=128"):
        assert page.count(f'<th scope="row">{own}</th>') == 2  # one winner per workload
    assert page.count("scheduling is synchronous") == 1
    assert "<li>All cells: scheduling is synchronous" in page


def test_a_missing_package_is_named_with_the_extra_to_install(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match=r"vl-convert-python; install bssim\[report\]"):
        write_report(results, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def page(results: Results, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A browser that shows the report; the test fails if the page logged an error."""
    write_report(results, tmp_path / "report.html")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    try:
        driver.get((tmp_path / "report.html").as_uri())
        WebDriverWait(driver, 120).until(
            lambda d: (
                d.find_elements(By.CSS_SELECTOR, "#bars svg")
                and d.find_elements(By.CSS_SELECTOR, "#scatter svg")
                and d.execute_script("return timelineCharts.views.length") == 3
            )
        )
        yield driver
        assert driver.get_log("browser") == []
    finally:
        driver.quit()


browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium and chromedriver"),
]


def lines(page: webdriver.Chrome) -> list[list[str]]:
    """Return the visible rows of the table of cells."""
    script = (
        "return [...document.querySelectorAll('#cell-table tbody tr')].filter(r => !r.hidden)"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    found: list[list[str]] = page.execute_script(script)
    return found


def heading(page: webdriver.Chrome, name: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, f"#cell-table th[data-column='{name}']")


class TestInABrowser:
    pytestmark = browser

    def test_headings_sort_by_key_and_say_so(self, page: webdriver.Chrome) -> None:
        names = [
            each.get_attribute("data-column")
            for each in page.find_elements(By.CSS_SELECTOR, "#cell-table thead th")
        ]
        assert names[:3] == ["workload", "scheduler", "engine.max_num_seqs"]
        place = names.index("throughput_tok_s")
        button = heading(page, "throughput_tok_s").find_element(By.TAG_NAME, "button")
        for order, sign in (("descending", -1), ("ascending", 1)):
            button.send_keys(Keys.ENTER)
            assert heading(page, "throughput_tok_s").get_attribute("aria-sort") == order
            rates = [float(line[place].replace(",", "")) for line in lines(page)]
            assert len(rates) == 12
            assert rates == sorted(rates, key=lambda rate: sign * rate)
        sorted_headings = page.find_elements(By.CSS_SELECTOR, "[aria-sort]")
        assert len(sorted_headings) == 1

    def test_filters_keep_the_cells_and_the_charts_that_match(self, page: webdriver.Chrome) -> None:
        page.find_element(By.ID, "filter-text").send_keys("trace3 dfs")
        assert {tuple(line[:2]) for line in lines(page)} == {("trace3", "dfs")}
        seqs = page.find_element(By.CSS_SELECTOR, "select[data-column='engine.max_num_seqs']")
        Select(seqs).select_by_visible_text("64")
        WebDriverWait(page, 60).until(
            lambda d: d.find_element(By.ID, "shown").text == "1 of 12 cells"
        )
        charts = page.find_elements(By.CSS_SELECTOR, "#bars figure h3")
        assert [each.text for each in charts] == ["trace3"]
        page.find_element(By.CSS_SELECTOR, "#filters button[type=reset]").send_keys(Keys.ENTER)
        WebDriverWait(page, 60).until(lambda _: len(lines(page)) == 12)

    def test_every_panel_of_steps_zooms_together(self, page: webdriver.Chrome) -> None:
        ranges = "return timelineCharts.views.map(v => v.scale('x').domain())"
        before = page.execute_script(ranges)
        page.find_element(By.CSS_SELECTOR, "[data-zoom='in']").send_keys(Keys.ENTER)
        middle = [before[0][1] / 4, before[0][1] * 3 / 4]
        WebDriverWait(page, 60).until(
            lambda d: d.execute_script(ranges) == [pytest.approx(middle)] * 3
        )
        page.find_element(By.CSS_SELECTOR, "[data-zoom='all']").send_keys(Keys.ENTER)
        WebDriverWait(page, 60).until(lambda d: d.execute_script(ranges) == before)

    def test_it_fits_a_phone_and_follows_the_dark_mode(self, page: webdriver.Chrome) -> None:
        size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide == 390
        colour = "return getComputedStyle(document.body).backgroundColor"
        seen = []
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            seen.append(page.execute_script(colour))
        assert seen == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]

    def test_a_screen_reader_finds_names_for_charts_tables_and_controls(
        self, page: webdriver.Chrome
    ) -> None:
        nameless = page.execute_script(
            "return [...document.querySelectorAll('table')].filter(t => !t.caption)"
            ".concat([...document.querySelectorAll('th')].filter(t => !t.scope))"
            ".concat([...document.querySelectorAll('svg.marks')].filter("
            "s => !s.closest('[role=graphics-document][aria-label]')))"
            ".concat([...document.querySelectorAll('select, input')].filter("
            "s => !s.closest('label'))).map(e => e.outerHTML)"
        )
        assert nameless == []
        assert (
            page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
            == []
        )
        data = json.loads(page.execute_script("return document.getElementById('data').text"))
        assert len(data["rows"]) == 12
