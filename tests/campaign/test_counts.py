"""The page on reliability has the counts of the cases that are tested, and there are enough of them."""

from __future__ import annotations

import counts


def test_the_page_has_the_present_counts():
    text = counts.PAGE.read_text(encoding="utf-8")
    assert counts.page(text) == text, "run python tests/campaign/counts.py"


def test_every_case_has_a_name_of_its_own_and_there_are_enough_bad_ones():
    cases = counts.every_case()
    assert len({case.label for case in cases}) == len(cases)
    assert sum(case.expected != "used" for case in cases) >= 250
