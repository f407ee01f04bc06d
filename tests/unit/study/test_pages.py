"""The tables of the pages are those of figures/, of the papers' declarations and of the profiles."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest

from drstudy.core import paths
from drstudy.papers import registry
from drstudy.study import claims, pages, plan

FOLDER = paths.root() / "figures"
BLOCK = re.compile(r"<!-- begin: (\w+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


@pytest.mark.parametrize("page", [pages.README, pages.RESULTS, pages.PROFILES, pages.GPU])
def test_tables_of_the_page_are_those_of_the_folder(page):
    text = (paths.root() / page).read_text(encoding="utf-8")
    contents = pages.tables(FOLDER)[page]
    assert pages.filled(text, page, contents) == text
    assert sorted(name for name, _ in BLOCK.findall(text)) == sorted(contents), "a block that nothing fills"


def test_only_these_pages_have_blocks():
    root = paths.root()
    found = [path for path in (*root.glob("*.md"), *root.glob("docs/*.md")) if BLOCK.search(path.read_text())]
    assert {path.relative_to(root).as_posix() for path in found} == {
        pages.README,
        pages.RESULTS,
        pages.PROFILES,
        pages.GPU,
    }


def test_filled_replaces_only_the_block():
    table = pd.DataFrame({"Unnamed: 0": ["a | b"], "value": ["0.5"]})
    text = "before\n<!-- begin: one -->\nold\n<!-- end: one -->\nafter\n"
    assert pages.filled(text, "page.md", {"one": table}) == (
        "before\n<!-- begin: one -->\n|  | value |\n| --- | --- |\n| a \\| b | 0.5 |\n<!-- end: one -->\nafter\n"
    )


def test_missing_block_is_told():
    with pytest.raises(pages.PageError, match=r"page\.md has no block for one"):
        pages.filled("nothing here", "page.md", {"one": pd.DataFrame()})


def test_rows_of_a_block_are_those_that_the_paper_declares():
    declared = {name: one.rows for name, one in pages.shown().items() if one.rows}
    assert declared
    contents = pages.tables(FOLDER)[pages.RESULTS]
    for name, rows in declared.items():
        whole = pd.read_csv(FOLDER / name, dtype=str, keep_default_na=False)
        kept = contents[name.removesuffix(".csv")]
        assert 0 < len(kept) < len(whole)
        assert kept.iloc[:, 0].str.startswith(rows).all()


def test_verdicts_of_a_paper_are_counted(monkeypatch):
    made = [
        SimpleNamespace(id=str(n), paper="Ju et al. 2021", place=f"page {n}", says="it works")
        for n in range(4)
    ]
    monkeypatch.setattr(claims, "read", lambda: made)
    verdicts = [claims.INCONCLUSIVE, claims.NOT_TESTABLE, claims.REPRODUCED, claims.INCONCLUSIVE]
    ledger = pd.DataFrame(
        {
            "claim": "it works",
            "place": [f"Ju et al. 2021, page {n}" for n in range(4)],
            "verdict": verdicts,
        }
    )
    found = pages.papers(ledger).set_index("paper")
    assert found.loc["Ju et al. 2021", "verdict"] == (
        "4 claims: 1 reproduced, 2 inconclusive, 1 not testable here"
    )
    assert found.loc["Liu et al. 2021", "verdict"] == pages.NO_CLAIM
    with pytest.raises(pages.PageError, match="no claim '3'"):
        pages.papers(ledger.iloc[:3])


def test_every_claim_is_counted_for_one_paper():
    citations = [paper.citation for paper in registry.PAPERS if paper.claims]
    assert len(set(citations)) == len(citations)
    assert {claim.paper for claim in claims.read()} == set(citations)
    counted = sum(
        int(number)
        for text in pd.read_csv(FOLDER / pages.PAPERS)["verdict"]
        for number in re.findall(r"^(\d+) claims", text)
    )
    assert counted == len(pd.read_csv(FOLDER / pages.CLAIMS))


def test_every_profile_has_a_row():
    found = pages.profiles()
    assert [name for name in plan.profiles() if f"[`{name}`](../params/{name})" in set(found["profile"])] == (
        plan.profiles()
    )
    assert (found != "").all().all()
    row = found[found["profile"].str.contains("`idrid_mini_real`")].iloc[0]
    assert row["photographs"] == "idrid"
    assert "eyepacs, `data/eyepacs`" in set(found["photographs"])
    assert row["fine-tuned networks"] == "those of `real_mini`"
    assert (row["notebooks"], row["run first"]) == ("01, 14", "`real_mini`")


def test_cost_has_a_row_per_setting():
    costs = pd.DataFrame(
        {
            "notebook": ["00", "core study"],
            "committed, core-minutes": ["1", "3"],
            "committed, GiB": ["0.5", "0.7"],
            "other, core-minutes": ["2", "4"],
            "other, GiB": ["0.6", "0.8"],
        }
    )
    assert pages.cost(costs).to_numpy().tolist() == [["committed", "3", "0.7"], ["other", "4", "0.8"]]


ROUNDED = {
    "a conditional GAN controls what is generated": "requested and predicted grade is",
    "oversampling with generated images helps the rare grades": "differs from no oversampling by",
    "generated images bring more than the photographs": "duplicated photographs of the same size by",
}
"""Claims whose numbers a sentence of the page repeats with two digits, and the words before the number."""


@pytest.mark.parametrize("claim", ROUNDED)
def test_numbers_in_sentences_are_those_of_the_ledger(claim):
    ledger = pd.read_csv(FOLDER / pages.CLAIMS, dtype=str)
    found = ledger[ledger["claim"].str.startswith(claim)]["found"].item()
    text = " ".join((paths.root() / pages.RESULTS).read_text(encoding="utf-8").split())
    words = re.escape(ROUNDED[claim])
    printed = re.search(rf"{words} (-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    wanted = [float(number) for number in re.findall(r"-?[\d.]+", found)]
    half = 0.005 + 0.0005  # of the last digit of the sentence, and of that of the ledger
    assert [float(number) for number in printed.groups()] == pytest.approx(wanted, abs=half, rel=0)
