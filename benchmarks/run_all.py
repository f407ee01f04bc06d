"""Run every benchmark, one after the other, and write RESULTS.md. Arguments (such as --quick) are passed on to each."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from drstudy.core import devices

HERE = Path(__file__).parent
SCRIPTS = (
    "fine_tune",
    "precision",
    "convolutions",
    "prepare_images",
    "heatmaps",
    "heatmap_methods",
    "glam",
    "compile_trunk",
    "bootstrap",
    "phantom",
    "scaling",
    "overhead",
    "device_speed",
    "whole_size",
)
WANTED = {
    r"fine_tune .* against (the paper's way|the same recipe)": 25,
    r"fine_tune .* against (fastai|fastdrs)": 1,
    r"prepare_images": 5,
    r"prepare_images_two_processes": 1.8,
    r"heatmaps .* against grad-cam": 10,
    r"heatmap_methods .*": 1,
    r"bootstrap": 50,
}
"""Ratio that we set out to reach, by pattern of a benchmark's whole name; the rest are reports without a goal."""

FIRST = ("ratio", "ours", "other", "unit", "same_result")


def main() -> None:
    chosen = [name for name in SCRIPTS if name in sys.argv[1:]] or list(SCRIPTS)
    options = [text for text in sys.argv[1:] if text not in SCRIPTS]
    results = HERE / "results.jsonl"
    kept = (
        [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        if results.exists()
        else []
    )
    here = devices.processor()
    kept = [row for row in kept if row["script"] not in chosen or row.get("processor") != here]
    for name in chosen:
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *options],
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            print(
                f"{name} failed with exit code {done.returncode}; its old results are dropped",
                file=sys.stderr,
            )
        for line in filter(lambda line: line.startswith("{"), done.stdout.splitlines()):
            print(line, flush=True)
            kept.append({"script": name, "options": " ".join(options)} | json.loads(line))
    kept.sort(key=lambda row: SCRIPTS.index(row["script"]))
    results.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    (HERE / "RESULTS.md").write_text(page(kept), encoding="utf-8")


def wanted(row: dict) -> str:
    """The goal of a benchmark, and whether it was missed."""
    goals = [goal for pattern, goal in WANTED.items() if re.fullmatch(pattern, row["name"])]
    return f"{goals[0]}{'' if row['ratio'] >= goals[0] else ' **(missed)**'}" if goals else "-"


def page(rows: list[dict]) -> str:
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in ("torch", "torchvision", "numpy", "opencv-python-headless")
    )
    lines = [
        "# What the benchmarks measured",
        "",
        "Written by `make bench`, which runs the scripts in this folder; each says at its top what is compared and what is not. Medians of runs that",
        "alternate. `ratio` is other / ours, `wanted` is what we set out to reach. `same result` says whether both sides computed the same thing,",
        "where that can be asked.",
        "",
        f'Python {platform.python_version()}, {versions}. "Lowered" libraries use fewer instructions than the processor has, which stands in for an',
        "older one. Rows without a processor are older than this column.",
        "",
        "| benchmark | processor | ratio | wanted | ours | other | unit | same result | more |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        more = {k: v for k, v in row.items() if k not in (*FIRST, "name", "script", "options", "processor")}
        told = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in more.items())
        same = {True: "yes", False: "**no**", None: "not asked"}[row["same_result"]]
        name = row["name"] + (f" ({row['options']})" if row["options"] else "")
        lines.append(
            f"| {name} | {row.get('processor', '')} | {row['ratio']:.2f} | {wanted(row)} | {row['ours']} | {row['other']} | {row['unit']} | {same} | {told} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
