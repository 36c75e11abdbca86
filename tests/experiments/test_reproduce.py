"""`bssim reproduce`: sweeps run once and resume, chapters become a page, failures are said."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from bssim.errors import InputError
from bssim.experiments.cli import main
from bssim.experiments.result_pages import (
    PAGES,
    Chapter,
    Claim,
    Finished,
    InterruptedStudyError,
    chosen,
    registry,
    run_studies,
    runner,
    shown,
    study_names,
    write_page,
)
from bssim.experiments.result_pages.registry import PAPER, load_study
from bssim.experiments.result_pages.runner import CONFIGS
from bssim.experiments.result_pages.tables import by_workload, frame_table, mean_and_range, span
from bssim.experiments.sweeps import Cell, Results, read_sweep_file
from bssim.experiments.sweeps.config import MixEntry

NAN = float("nan")


@dataclass(frozen=True)
class DemoStudy:
    """Compares two schedulers on one sweep file; a missing run breaks it if ``strict``."""

    name: str = "demo"
    title: str = "A demonstration"
    files: tuple[str, ...] = ("demo.yaml",)
    strict: bool = False

    def sweeps(self, full: bool) -> Sequence[str]:
        return self.files

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        assert set(results) == set(self.files)
        rate = by_workload(results[self.files[0]])
        gain = rate["blendserve"] / rate["dfs"]
        if self.strict and gain.isna().any():
            raise KeyError("a number that is not there")
        claims = [Claim(f"{self.name}.{w}", f"gain on {w}", 1.2, v) for w, v in gain.items()]
        figure = Figure(figsize=(1, 1))
        figure.add_subplot().plot([0, 1])
        return Chapter(claims, "Some text.", {self.name: figure}, {self.name: "A line."})


@dataclass
class Watch:
    """Notes which sweeps ran and how much of each; raises Ctrl-C at the n-th finished cell."""

    interrupt_at: int = -1
    sweeps: list[tuple[str, int, int]] = field(default_factory=list)
    finished_cells: int = 0
    name: str = ""

    @contextmanager
    def __call__(self, name: str) -> Iterator["Watch"]:
        self.name = name
        yield self

    def start(self, due: int, reused: int) -> None:
        self.sweeps.append((self.name, due, reused))

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        self.finished_cells += 1
        if self.finished_cells == self.interrupt_at:
            raise KeyboardInterrupt


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of sweep files in place of those that ship, with ``demo.yaml`` in it."""
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(runner, "CONFIGS", folder)
    (folder / "demo.yaml").write_text(
        "workloads: [trace1, trace3]\nschedulers: [dfs, blendserve]\nnum_requests: 200\n"
    )
    return folder


def one_fails(configs: Path) -> None:
    """Make a demo sweep in which the cells of one workload fail: a request that cannot fit."""
    rows = [{"id": "r", "prompt_token_ids": list(range(50)), "output_tokens": 5}]
    (configs / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (configs / "short.jsonl").write_text(
        json.dumps({"id": "r", "prompt_token_ids": [1], "output_tokens": 2}) + "\n"
    )
    (configs / "demo.yaml").write_text(
        "workloads: [./short.jsonl, ./long.jsonl]\nschedulers: [dfs, blendserve]\n"
        "engine: {preset: nanoflow, max_model_len: 9}\n"
    )


def test_a_sweep_that_two_studies_read_runs_once_and_resumes(configs: Path, tmp_path: Path) -> None:
    studies = [DemoStudy(), DemoStudy(name="again")]
    first = Watch()
    out = tmp_path / "results"
    finished = run_studies(studies, out, jobs=1, watch=first)
    assert first.sweeps == [("demo (1 of 1 sweeps)", 4, 0)]
    assert [one.cells for one in finished] == [4, 4]
    values = [claim.ours for one in finished for claim in one.chapter.claims]
    assert values[:2] == values[2:]
    assert (out / "demo" / "runs.csv").exists()
    again = Watch()
    run_studies(studies, out, jobs=1, watch=again)
    assert again.sweeps == [("demo (1 of 1 sweeps)", 0, 4)]


def test_ctrl_c_keeps_what_finished(configs: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedStudyError):
        run_studies([DemoStudy()], tmp_path / "r", jobs=1, watch=Watch(interrupt_at=3))
    rest = Watch()
    run_studies([DemoStudy()], tmp_path / "r", jobs=1, watch=rest)
    assert rest.sweeps == [("demo (1 of 1 sweeps)", 1, 3)]


def test_failed_cells_are_named_in_the_chapter(configs: Path, tmp_path: Path) -> None:
    one_fails(configs)
    (lenient, strict) = run_studies(
        [DemoStudy(), DemoStudy(name="strict", strict=True)],
        tmp_path / "r",
        jobs=1,
        watch=Watch(),
    )
    assert len(lenient.failed) == 2
    assert [claim.as_json()["ours"] is None for claim in lenient.chapter.claims] == [False, True]
    assert strict.chapter.claims == ()
    page = tmp_path / "page.md"
    write_page(page, PAPER, [lenient, strict])
    text = page.read_text()
    assert text.count("**2 of 4 cells have no result:**") == 2
    assert "- demo: long, dfs (failed): workload 'long'" in text
    assert "could not be written without the cells that failed" in text


def test_a_broken_study_whose_cells_are_all_there_is_not_hidden(
    configs: Path, tmp_path: Path
) -> None:
    class Broken(DemoStudy):
        def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_studies([Broken()], tmp_path / "r", jobs=1, watch=Watch())


def test_two_sweeps_cannot_share_a_folder(configs: Path, tmp_path: Path) -> None:
    (configs / "other.yaml").write_text("name: demo\n" + (configs / "demo.yaml").read_text())
    study = DemoStudy(files=("demo.yaml", "other.yaml"))
    watch = Watch()
    with pytest.raises(InputError, match=r"other.yaml: name 'demo' is that of .*demo.yaml too"):
        run_studies([study], tmp_path / "r", jobs=1, watch=watch)
    assert watch.sweeps == []


def chapter_of(*claims: Claim) -> Finished:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    chapter = Chapter(claims, "Text | with a bar.", {"drawn": figure}, {"drawn": "What to see."})
    return Finished(DemoStudy(), chapter, pd.DataFrame(), 0)


def test_the_page_lists_again_what_does_not_hold(tmp_path: Path) -> None:
    claims = (
        Claim("demo.a", "first", 2.0, 1.0, holds=False, note="because of b|c"),
        Claim("demo.b", "second", "above 1", 12345.6, holds=True),
        Claim("demo.c", "third", 0.5, NAN),
    )
    page = tmp_path / "docs" / "page.md"
    write_page(page, PAPER, [chapter_of(*claims)])
    text = page.read_text()
    assert "| first | 2 | 1 | 0.5 | **no** | because of b\\|c |" in text
    assert "| second | above 1 | 12,346 | - | yes |  |" in text
    assert "| third | 0.5 | - | - |  |  |" in text
    closing = text.partition("## What does not hold")[2]
    assert "1 of 2 statements hold." in closing
    assert "- `demo.a`, first: paper 2, ours 1. because of b|c" in closing
    assert "demo.b" not in closing
    assert "![What to see.](figures/drawn.png)" in text
    assert "trial" not in text
    first = {p.name: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()}
    assert set(first) == {"page.md", "drawn.png", "drawn.pdf"}
    write_page(page, PAPER, [chapter_of(*claims)])
    assert {p.name: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()} == first
    write_page(page, PAPER, [chapter_of(*claims)], num_requests=4000)
    assert "**A trial, sweeps at 4,000 requests per workload" in page.read_text()


def test_ratios_are_of_numbers_alone() -> None:
    assert Claim("i", "w", 2.0, 3.0).ratio == 1.5
    for paper, ours in ((0.0, 1.0), ("1 to 2", 1.5), (None, 1.0), (2.0, NAN), (NAN, 1.0)):
        assert Claim("i", "w", paper, ours).ratio is None
    claim = Claim("i", "w", 2.0, NAN, "n").as_json()
    assert claim == {
        "id": "i",
        "what": "w",
        "paper": 2.0,
        "ours": None,
        "ratio": None,
        "note": "n",
    }


def test_numbers_and_spans_in_words() -> None:
    assert [shown(v) for v in (None, NAN, "x", 0.0, 0.123456, 11080.2, 3)] == [
        *("-", "-", "x", "0", "0.1235", "11,080", "3")
    ]
    assert span([1.5, 1.25]) == "1.250x to 1.500x"
    assert span([1.5, NAN]) is None


def test_tables_in_markdown() -> None:
    table = pd.DataFrame(
        {"dfs": [1.0, 2.0], "ratio": [3.0, NAN]},
        index=pd.MultiIndex.from_tuples([("t1", 0), ("t2", 1)], names=["trace", "seed"]),
    )
    assert frame_table(table, "{:.1f}".format, means=True).splitlines() == [
        "| trace | seed | dfs | ratio |",
        "|---|---|---:|---:|",
        "| t1 | 0 | 1.0 | 3.0 |",
        "| t2 | 1 | 2.0 | - |",
        "| *mean* |  | 1.5 | - |",
    ]
    words = pd.DataFrame({"a": ["x", None]}, index=["p", "q"])
    assert frame_table(words, str, "which").splitlines() == [
        *("| which | a |", "|---|---:|", "| p | x |", "| q | - |")
    ]
    assert mean_and_range(pd.Series([0.95, 0.97])) == "0.960 (0.950-0.970)"
    assert mean_and_range(pd.Series([0.95])) == "0.950"


@pytest.mark.parametrize("name", study_names())
def test_every_study_has_its_name_and_sweeps_that_ship(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSSIM_TRACES", "/traces")  # some sweeps read files of that folder
    study = load_study(name)
    assert study.name == name
    for full in (False, True):
        names = [read_sweep_file(CONFIGS / file).name for file in study.sweeps(full)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["fig13", "fig14", "fig15"])
def test_full_runs_more_of_a_grid(name: str) -> None:
    def points(full: bool) -> int:
        (file,) = load_study(name).sweeps(full)
        (entry,) = read_sweep_file(CONFIGS / file).config.workloads
        assert isinstance(entry, MixEntry)
        return len(entry.mix.density) * len(entry.mix.sharing_target)

    assert points(False) == 9
    assert points(True) >= 39


def test_names_stand_for_studies_and_pages() -> None:
    studies, page, whole = chosen(["all"])
    assert page is PAPER
    assert whole
    assert PAGES["all"] is PAPER
    names = [s.name for s in studies]
    assert names == [name for name in study_names() if name in names]
    assert {"fig7a", "fig11", "table3"} <= set(names)
    studies, page, whole = chosen(["table3", "fig12", "table3"])
    assert [s.name for s in studies] == ["table3", "fig12"]
    assert page is PAPER
    assert not whole
    assert chosen(["ratio_grid"])[1:] == (PAGES["ratio"], False)  # aims are not the paper's
    assert chosen(["ratio_grid", "fig12"])[1].reference == "reference"
    with pytest.raises(InputError, match=r"found 'figure12' \(did you mean 'fig12'\?\)"):
        chosen(["figure12"])


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["reproduce", *arguments])
    return int(exit_.value.code or 0)


def test_one_command_prints_json_writes_a_page_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("fig15", "-n", "200", "--json", "--jobs", "2", "--page", "docs/p.md")
    assert run_cli(*command) == 0
    out, err = capsys.readouterr()
    assert "fig15 (1 of 1 sweeps): 18 cells to run" in err
    claims = json.loads(out)
    assert {tuple(claim) for claim in claims} == {("id", "what", "paper", "ours", "ratio", "note")}
    ids = [claim["id"] for claim in claims]
    assert ids == ["fig15.min", "fig15.max", "fig15.wins"]
    assert claims[0]["ratio"] == pytest.approx(claims[0]["ours"] / 1.07)
    text = (tmp_path / "docs/p.md").read_text()
    assert "**A trial, sweeps at 200 requests" in text
    assert (tmp_path / "docs/figures/fig15.png").stat().st_size > 10_000
    assert run_cli(*command) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert "0 cells to run (18 finished earlier)" in err
    assert (tmp_path / "docs/p.md").read_text() == text
    # a single study without --page: a table, and no page
    assert run_cli("fig15", "-n", "200", "--quiet") == 0
    out, err = capsys.readouterr()
    assert "fig15.max" in out
    assert err == ""
    assert not (tmp_path / "docs/reproduction.md").exists()
    assert (tmp_path / "results/reproduce/figures/fig15.pdf").exists()


def test_wrong_names_and_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (("fig99",), "error: reproduce: found 'fig99'"),
        ((), "error: reproduce: found no name; expected at least one of: all, ratio, "),
        (("fig7a", "--jobs", "0"), "error: --jobs: found 0"),
        (("fig7a", "--page", "page.html"), "error: --page: found 'page.html'"),
    ):
        assert run_cli(*arguments) == 2
        assert message in capsys.readouterr().err


def test_the_exit_status_is_1_when_a_cell_failed(
    configs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_fails(configs)
    monkeypatch.setitem(registry._STUDIES, "demo", (PAPER, ""))
    monkeypatch.setattr(registry, "load_study", lambda name: DemoStudy(name))
    assert run_cli("demo", "--json", "--jobs", "1", "--out", str(tmp_path / "r")) == 1
    out, err = capsys.readouterr()
    assert [claim["ours"] is None for claim in json.loads(out)] == [False, True]
    assert "2 cells failed; their chapters say which" in err
