"""Write the table of the campaign into docs/reliability.md: ``python tests/campaign/counts.py``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import labels  # noqa: E402
import pictures  # noqa: E402
import result_cases  # noqa: E402
import settings_cases  # noqa: E402
from cases import OUTCOMES, Case  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def every_case() -> list[Case]:
    return [case for module in (pictures, labels, settings_cases, result_cases) for case in module.cases()]


def table() -> str:
    """The counts as a Markdown table: one row per group, one column per expected outcome."""
    counts = Counter((case.group, case.expected) for case in every_case())
    groups = list(dict.fromkeys(case.group for case in every_case()))
    lines = ["| inputs | " + " | ".join(OUTCOMES) + " | all |", "|---|" + "---:|" * (len(OUTCOMES) + 1)]
    for group in groups:
        row = [counts[group, outcome] for outcome in OUTCOMES]
        lines.append(f"| {group} | " + " | ".join(str(n or "") for n in [*row, sum(row)]) + " |")
    sums = [sum(counts[group, outcome] for group in groups) for outcome in OUTCOMES]
    lines.append("| **all** | " + " | ".join(f"**{n}**" for n in [*sums, sum(sums)]) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the present table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(table())
