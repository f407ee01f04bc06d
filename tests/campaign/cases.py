"""A campaign of bad inputs: each case makes one small input, says what must become of it, and is judged by one rule.

Outcomes, as the table in ``docs/reliability.md`` counts them:

- ``used``: the input is good and must be used without a word.
- ``noted``: it is used, and what was noticed is named with the file.
- ``excluded``: this file or row is left out and named; the others are used.
- ``refused``: nothing can be computed; one message says which file, what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OUTCOMES = ("used", "noted", "excluded", "refused")


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        group: Heading of the table.
        name: What is wrong with the input.
        expected: One of :data:`OUTCOMES`.
        run: Makes the input below an empty folder, gives it to the project, and returns the outcome and what was said.
        says: Words that the message must contain.
    """

    group: str
    name: str
    expected: str
    run: Callable[[Path], tuple[str, str]]
    says: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.expected in OUTCOMES, self.expected

    @property
    def label(self) -> str:
        return f"{self.group}: {self.name}"


def judge(case: Case, folder: Path) -> None:
    """Run a case and compare; any other exception than the project's own is a failure by itself."""
    outcome, said = case.run(folder)
    assert outcome == case.expected, f"{case.label}: {outcome}, not {case.expected}; it said: {said}"
    for word in case.says:
        assert word.lower() in said.lower(), f"{case.label}: {word!r} is not in: {said}"
