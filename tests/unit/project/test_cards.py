"""README, data card, glossary and CITATION.cff against what they speak of."""

import datetime
import re
import tomllib
from collections import Counter

import pandas as pd
import pytest
import yaml

from drstudy.core import paths
from drstudy.data import sources
from drstudy.data.manifest import EXCLUDED
from drstudy.papers import registry
from drstudy.papers.transfer import tables as transfer

SETS = {
    "eyepacs_mini": "eyepacs",
    "dr600_mini": "folder",
    "odir_mini": "odir",
    "idrid_mini": "idrid",
    "diaretdb1_mini": "diaretdb1",
}
"""Profiles of real photographs and the layout of their data."""


def text(page: str) -> str:
    return (paths.root() / page).read_text(encoding="utf-8")


def counts() -> dict[str, list[str]]:
    """The table of counts of the data card: cells after the profile, by profile."""
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| (.+) \|$", text("docs/data_card.md"), re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_readme_is_short():
    assert len(text("README.md").splitlines()) <= 150


def test_counts_of_the_phantom_are_those_of_the_committed_audit():
    folder = paths.root() / "reference" / "demo" / "01_data_audit"
    found = pd.read_csv(folder / "tables" / "class_counts.csv")["images"]
    metrics = yaml.safe_load((folder / "run.json").read_text())["metrics"]
    assert counts()["demo"] == [str(metrics["n_images"]), str(metrics["n_patients"]), *map(str, found)]


def test_counts_of_the_whole_set_are_the_printed_ones():
    printed = transfer.PAPER_GRADE_COUNTS
    assert counts()["paper"] == [str(sum(printed)), "not counted here", *map(str, printed)]


def test_every_set_has_a_row():
    assert set(counts()) == {"demo", "paper", *SETS}


@pytest.mark.real
@pytest.mark.parametrize("profile", SETS)
def test_counts_of_the_subsets_are_those_of_the_files(profile, shared_data):
    source = sources.load(SETS[profile], shared_data / profile)
    manifest = source.manifest
    images, patients, *grades = counts()[profile]
    assert int(images) == len(manifest)
    assert EXCLUDED not in set(source.problems["action"])
    if grades[0] == "–":
        assert manifest["grade"].isna().all()
        assert patients == "not named"
        assert manifest["patient_id"].nunique() == len(manifest)
    else:
        assert int(patients) == manifest["patient_id"].nunique()
        assert [int(cell) for cell in grades] == [
            int((manifest["grade"] == grade).sum()) for grade in range(5)
        ]


@pytest.mark.real
def test_sentences_about_the_subsets(shared_data):
    page = text("docs/data_card.md")
    odir = sources.load("odir", shared_data / "odir_mini").manifest
    ill = odir["amd"] == 1
    assert (odir["grade"].isna() == ill).all()
    free, open_ = int((odir["amd"] == 0).sum()), int(odir["amd"].isna().sum())
    assert (
        f"the {ill.sum()} eyes with AMD; {free} eyes are known to have no AMD, and for {open_} the keywords"
        in page
    )
    votes = {
        kind: len(list((shared_data / "diaretdb1_mini" / "votes" / kind).iterdir()))
        for kind in ("MA", "HE", "EX", "SE", "OD")
    }
    assert (
        "votes for microaneurysms in {MA} photographs, haemorrhages in {HE}, hard exudates in {EX}, soft exudates in {SE}, "
        "and the disc in {OD}.".format(**votes)
        in page
    )
    masks = Counter(path.stem.rpartition("_")[2] for path in (shared_data / "idrid_mini").rglob("*.tif"))
    assert masks == {"MA": 14, "HE": 14, "EX": 14, "OD": 14, "SE": 4}
    assert "Of the IDRiD subset, 4 photographs have a mask of soft exudates; all have masks of" in page


def test_sets_of_the_data_card_can_be_read():
    """The card names every layout of real photographs that the study reads."""
    page = text("docs/data_card.md")
    for name in ("EyePACS", "APTOS", "IDRiD", "DIARETDB1", "ODIR", "DR600"):
        assert f"| {name} |" in page, name


def test_model_card_names_the_notebooks_that_train():
    page = text("docs/model_card.md")
    named = set(re.findall(r"^\|[^|]+\| (\d\d) \|", page, re.MULTILINE))
    assert named == {"03", "11", "12", "13", "14", "15", "22"}
    assert named <= {name[:2] for name in registry.NOTEBOOKS}


def test_glossary_is_in_alphabetical_order():
    terms = re.findall(r"^\| ([^|]+?) \|", text("docs/glossary.md"), re.MULTILINE)[1:]
    assert terms == sorted(terms, key=str.lower)
    for term in ("QWK", "referable DR", "AUC", "Grad-CAM", "pointing game", "calibration"):
        assert term in terms


def citation() -> dict:
    return yaml.safe_load(text("CITATION.cff"))


def test_citation_has_what_the_format_requires():
    """Keys of the Citation File Format 1.2.0: those required, and of a software release."""
    found = citation()
    assert found["cff-version"] == "1.2.0"
    for key in (
        "message",
        "title",
        "authors",
        "type",
        "version",
        "date-released",
        "license",
        "abstract",
        "keywords",
    ):
        assert found[key], key
    for author in found["authors"]:
        assert author.keys() & {"name", "family-names"}
    assert datetime.date.fromisoformat(found["date-released"])
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert found["version"] == project["version"]
    assert found["license"] == project["license"]
    assert [one["name"] for one in found["authors"]] == [one["name"] for one in project["authors"]]


def test_citation_refers_to_every_paper():
    found = citation()["references"]
    for one in found:
        assert {"type", "title", "authors", "year"} <= one.keys(), one
        assert one["type"] in {"article", "conference-paper"}
        assert all(author["family-names"] and author["given-names"] for author in one["authors"])
        assert "doi" in one or "identifiers" in one
    years = {(one["authors"][0]["family-names"], one["year"]) for one in found}
    papers = {
        (match[1], int(match[2]))
        for paper in registry.PAPERS
        if (match := re.match(r"(\w+)\b.* (\d{4})\b", paper.citation))
    }
    assert years == papers


def test_citation_agrees_with_the_page_of_sources():
    page = " ".join(text("docs/sources.md").split())
    for one in citation()["references"]:
        assert one["title"] in page, one["title"]
        names = [
            one.get("doi") and f"doi:{one['doi']}",
            *(entry["value"] for entry in one.get("identifiers", [])),
        ]
        for name in filter(None, names):
            assert name in page, name
