"""The page of benchmark results: one row per benchmark, both kinds of processors, goals, provenance; and the runner that keeps the rows."""

from __future__ import annotations

import json

import pytest

from drstudy.core import devices, paths

BF16 = "P, 2 cores, AVX-512 with bf16 units"
LOWERED = f"{BF16}, lowered to avx2, AVX2, AVX2, HASWELL"


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.root() / "benchmarks"))


@pytest.fixture
def results_page():
    import results_page

    return results_page


def row(name: str = "bootstrap", **fields) -> dict:
    own = {"script": "bootstrap", "options": "", "name": name, "processor": BF16, "unit": "s", "ours": 1.0}
    return own | {"other": 60.0, "ratio": 60.0, "same_result": True} | fields


def table(text: str) -> list[list[str]]:
    """Cells of the rows of the first table."""
    lines = text.split("\n\n")
    first = next(part for part in lines if part.startswith("| benchmark"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines()[2:]]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"processor": BF16}, "bf16 units"),
        ({"processor": LOWERED}, "AVX2"),
        ({"processor": "P, 4 cores, AVX2"}, "AVX2"),
        ({"processor": "P, 4 cores, AVX-512"}, "another processor"),
        ({"processor": f"{BF16}, lowered to default, SSE41, SSE4_2, NEHALEM"}, "another processor"),
        ({"processor": f"{BF16}, lowered to avx512, AVX512_CORE"}, "another processor"),
        ({"processor": "P, 2 cores, aarch64"}, "another processor"),
        ({}, "another processor"),
        ({"processor": BF16, "device": "NVIDIA H200, bf16, 16 thread(s)"}, "GPU"),
        ({"processor": BF16, "device": "CPU, bf16, 2 thread(s)"}, "bf16 units"),
    ],
)
def test_the_kind_of_device_follows_from_the_row(results_page, fields, kind):
    assert results_page.kind(fields) == kind


def test_the_processor_of_this_machine_lowered_to_avx2_fills_the_other_column(results_page, monkeypatch):
    for name, value in {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "HASWELL",
    }.items():
        monkeypatch.setenv(name, value)
    assert results_page.kind({"processor": devices.processor()}) == "AVX2"


@pytest.mark.parametrize(
    ("name", "fields", "missed"),
    [
        ("heatmaps densenet121, three layers, against grad-cam", {"ratio": 9.99}, True),
        ("heatmaps densenet121, one layer, against grad-cam", {"ratio": 6.0}, False),
        ("heatmaps densenet121, one layer, bf16 trunk, against grad-cam", {"ratio": 9.0}, True),
        ("heatmaps densenet121, one layer, bf16 trunk, against grad-cam", {"ratio": 10.0}, False),
        (
            "heatmaps densenet121, one layer, bf16 trunk, against grad-cam",
            {"ratio": 10.0, "rank_correlation_lowest": 0.998, "greatest_difference_of_range": 0.001},
            True,
        ),
        (
            "heatmaps densenet121, one layer, bf16 trunk, against grad-cam",
            {"ratio": 9.0, "share_of_limit": 0.9, "same_result": False},
            True,
        ),
        ("heatmaps densenet121, three layers, against medcam", {"ratio": 0.1}, False),
        ("prepare_images", {"ratio": 5.0, "share_of_limit": 0.75}, False),
        ("prepare_images", {"ratio": 5.0, "share_of_limit": 0.74}, True),
        ("prepare_images", {"ratio": 4.9, "share_of_limit": 0.84}, True),
        ("prepare_images", {"ratio": 4.9, "share_of_limit": 0.85}, False),
        (
            "heatmaps efficientnet_lite0, one layer, against grad-cam",
            {"ratio": 3, "share_of_limit": 0.86},
            False,
        ),
        ("prepare_images", {"ratio": 5.0}, False),
        ("prepare_images_two_processes", {"ratio": 1.8}, True),
        ("fine_tune densenet121 against the same recipe", {"ratio": 19.0}, True),
        ("glam maps of 512 px, against Grad-CAM", {"ratio": 0.3, "images_a_second": 5.0}, False),
        ("glam maps of 512 px, against Grad-CAM", {"ratio": 9.0, "images_a_second": 4.9}, True),
        ("gan 64 px against the plain loop", {"ratio": 0.84}, False),
        ("gan 64 px against the plain loop", {"ratio": 0.83}, True),
        ("scaling", {"time_ratio_a_doubling": [1.2, 2.06]}, True),
        ("scaling", {"time_ratio_a_doubling": [2.05, 1.2], "memory_growth_a_doubling": [0.01, 0.05]}, False),
        ("scaling", {"time_ratio_a_doubling": [1.2], "memory_growth_a_doubling": [0.06, 0.0]}, True),
        ("overhead", {"share": 0.041}, True),
        ("a benchmark without a goal", {"ratio": 0.0}, False),
    ],
)
def test_a_goal_judges_the_field_it_names(results_page, name, fields, missed):
    assert results_page.missed(row(name, **fields)) is missed


def test_every_goal_fits_a_name_that_a_script_gives(results_page):
    """A pattern that fits no name would never judge anything."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in (paths.root() / "benchmarks").glob("*.py"))
    for pattern in results_page.GOALS:
        begin = pattern.split(" ")[0].rstrip(".*")
        assert f'"{begin}' in text, pattern


def test_one_row_has_both_processors(results_page):
    text = results_page.page([row(ratio=60.0), row(ratio=40.0, ours=2.0, processor=LOWERED)])
    assert table(text) == [
        [
            "bootstrap",
            "ratio ≥ 50",
            "60.00",
            "1.0 / 60.0",
            "yes",
            "40.00 **missed**",
            "2.0 / 60.0",
            "yes",
            "s",
        ]
    ]


def test_a_missing_column_is_a_dash_and_a_goal_that_is_no_ratio_shows_its_figure(results_page):
    measured = row("glam x", ratio=0.5, images_a_second=4.2, processor=LOWERED, same_result=None)
    [cells] = table(results_page.page([measured]))
    assert cells[1] == "images per second ≥ 5; growth of memory per doubling ≤ 0.05"
    assert cells[2:5] == ["-", "-", "-"]
    assert cells[5:8] == ["0.50; images per second 4.2 **missed**", "1.0 / 60.0", "not asked"]


def test_a_wrong_result_stands_out_and_options_are_shown(results_page):
    [cells] = table(results_page.page([row(same_result=False, options="--quick")]))
    assert cells[3:5] == ["1.0 / 60.0 (--quick)", "**no**"]


def test_gpu_rows_named_scripts_and_unknown_processors_stand_apart(results_page):
    rows = [
        row("main"),
        row("on a gpu", device="NVIDIA H200, bf16"),
        row("whole_size", script="whole_size", commit="9" * 40),
        row("older", processor=""),
    ]
    text = results_page.page(rows)
    assert [cells[0] for cells in table(text)] == ["main"]
    for heading, name in (
        ("## On a GPU", "on a gpu"),
        ("## Scripts that run only if they are named", "whole_size"),
        ("## On other processors", "older"),
    ):
        part = text.split(heading)[1].split("\n\n")[1]
        assert part.splitlines()[2].startswith(f"| {name} |")
        assert len(part.splitlines()) == 3


def test_details_are_below_the_table_in_words(results_page):
    measured = row(qwk_ours=0.5, stages=[["01", 2.5], ["03", 4]], parts={"maps": 3.05}, sizes=[], found=True)
    text = results_page.page([measured])
    head, details = text.split("<details>")
    assert "0.5" not in head.split("| benchmark")[1]
    assert "kappa of ours: 0.5. stages: 01, 2.5; 03, 4. parts: maps 3.05. sizes: none. found: yes." in details


def test_the_heading_names_the_commit_and_the_date(results_page):
    rows = [row(name, commit="a" * 40, changed=False, date="2026-01-02") for name in ("one", "two")]
    text = results_page.page(rows)
    assert "All rows of the first table stand for commit `aaaaaaaaaaaa`, measured 2026-01-02." in text
    assert "Warning" not in text


def test_the_heading_warns_of_several_commits_and_of_changes(results_page):
    rows = [
        row("one", commit="a" * 40, changed=False, date="2026-01-02"),
        row("two", commit="a" * 40, changed=True, date="2026-01-05"),
        row("three"),
    ]
    text = results_page.page(rows)
    assert "**Warning: the rows of the first table come from different commits**" in text
    assert "`aaaaaaaaaaaa` (1), `aaaaaaaaaaaa` with changes (1), not on record (1)" in text
    assert "measured 2026-01-02 to 2026-01-05" in text


def test_the_heading_says_how_long_each_script_took_once(results_page):
    rows = [
        row("one", script="fine_tune", script_seconds=90.0),
        row("two", script="fine_tune", script_seconds=90.0),
        row("three", script="gan", script_seconds=30.0),
        row("three", script="gan", script_seconds=60.0, processor=LOWERED),
        row("four"),
    ]
    text = results_page.page(rows)
    told = "Its scripts took 2.0 minutes with bf16 units (2 scripts) and 1.0 minutes with AVX2 (1 scripts)."
    assert told in text


# --- the runner -----------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Two scripts, of which the second fails after its line, and a store with rows of both on two processors."""
    import run_all

    monkeypatch.setattr(run_all, "SCRIPTS", ("good", "bad", "device_speed"))
    line = 'print(\'{"name": "%s", "ours": 1, "other": 2, "ratio": 2, "unit": "s", "same_result": true}\')\n'
    (tmp_path / "good.py").write_text("import sys\nprint('chatter', sys.argv[1:])\n" + line % "good")
    (tmp_path / "bad.py").write_text(line % "bad first" + "raise SystemExit(3)\n")
    (tmp_path / "device_speed.py").write_text("raise SystemExit('it was not named')\n")
    rows = [
        row(f"{name} old", script=name, processor=where)
        for name in ("good", "bad")
        for where in (devices.processor(), "elsewhere")
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))

    def run(*arguments: str) -> tuple[int, list[dict]]:
        code = run_all.main(arguments, tmp_path, tmp_path)
        lines = (tmp_path / "results.jsonl").read_text().splitlines()
        assert (tmp_path / "RESULTS.md").is_file()
        return code, [json.loads(one) for one in lines]

    return run


def test_a_failed_script_fails_the_run_at_its_end_and_keeps_the_others(bench, capfd):
    code, rows = bench()
    assert code == 1
    assert [one["name"] for one in rows] == ["good old", "good", "bad old", "bad first"]
    assert {one["processor"] for one in rows if one["name"].endswith("old")} == {"elsewhere"}
    told = capfd.readouterr().err
    assert "good: " in told
    assert "bad failed with exit code 3" in told
    assert "all 2 scripts: " in told


def test_new_rows_have_their_commit_date_processor_and_options(bench):
    code, rows = bench("good", "--quick")
    assert code == 0
    [new] = [one for one in rows if one["name"] == "good"]
    assert new["options"] == "--quick"
    assert new["processor"] == devices.processor()
    assert len(new["date"]) == len("2026-01-02")
    assert isinstance(new["changed"], bool)
    assert new["script_seconds"] >= 0
    assert len(new["commit"]) in (0, 40)


def test_the_page_alone_runs_nothing(bench):
    code, rows = bench("--page")
    assert code == 0
    assert [one["name"] for one in rows] == ["good old", "good old", "bad old", "bad old"]
