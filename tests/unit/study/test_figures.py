"""What the README shows is what the results say."""

import json

import pandas as pd
import pytest

from drstudy.core import paths
from drstudy.study import figures, verify

FOLDER = paths.root() / "figures"


def test_manifest_digests_are_those_of_the_files():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert set(manifest) == {
        *figures.shown(),
        *figures.COMMITTED,
        *figures.DRAWN,
        figures.CLAIMS,
    }
    for name, entry in manifest.items():
        assert paths.sha256(FOLDER / name) == entry["sha256"], name
        assert (FOLDER / name).stat().st_size < 1_000_000, name


def test_nothing_else_lies_in_the_folder():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {
        *figures.shown(),
        *figures.COMMITTED,
        *figures.DRAWN,
        figures.CLAIMS,
        "manifest.json",
    }


def test_readme_tables_are_those_of_the_folder():
    text = (paths.root() / "README.md").read_text(encoding="utf-8")
    assert figures.filled(text, FOLDER) == text


def test_readme_shows_only_pictures_that_exist():
    text = (paths.root() / "README.md").read_text(encoding="utf-8")
    shown = [part.split(")")[0] for part in text.split("](figures/")[1:]]
    assert shown
    assert all((FOLDER / name).is_file() for name in shown)


def test_committed_results_are_those_that_the_readme_shows():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    for name in figures.COMMITTED:
        source = verify.folder(manifest[name]["profile"]) / name
        assert source.read_bytes() == (FOLDER / name).read_bytes()


def test_filled_replaces_only_the_block(tmp_path):
    shown = figures.shown()
    first = {
        name: f"{shown[file].rows[0]} | B"
        for name, file in figures.blocks().items()
        if file in shown and shown[file].rows
    }
    for name, file in figures.blocks().items():
        rows = [first[name], "another row"] if name in first else ["a row | B"]
        pd.DataFrame({"Unnamed: 0": rows, "value": "0.5"}).to_csv(tmp_path / file, index=False)
    blocks = "".join(
        f"before {name}\n<!-- begin: {name} -->\nold\n<!-- end: {name} -->\nafter\n"
        for name in figures.blocks()
    )
    text = figures.filled(blocks, tmp_path)
    assert "old" not in text
    assert "another row" not in text
    for name in figures.blocks():
        row = first.get(name, "a row | B").replace("|", "\\|")
        assert (
            f"before {name}\n<!-- begin: {name} -->\n|  | value |\n| --- | --- |\n| {row} | 0.5 |\n" in text
        )
    assert text.count("before") == text.count("after\n") == len(figures.blocks())


def test_missing_block_is_told():
    with pytest.raises(ValueError, match=f"no block for {next(iter(figures.blocks()))}"):
        figures.filled("nothing here", FOLDER)
