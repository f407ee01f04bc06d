"""What lies in figures/ is what the results say, and what the pages show."""

import json
import shutil

from drstudy.core import paths
from drstudy.study import figures, measured, pages, verify

FOLDER = paths.root() / "figures"


def test_manifest_digests_are_those_of_the_files():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert set(manifest) == {
        *figures.shown(),
        *figures.COMMITTED,
        *figures.DRAWN,
        figures.CLAIMS,
        figures.PAPERS,
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
        figures.PAPERS,
        "manifest.json",
    }


def test_every_picture_is_shown_on_a_page():
    pages = [paths.root() / "README.md", *(paths.root() / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    names = [path.name for path in FOLDER.iterdir() if path.suffix in (".png", ".jpg")]
    assert names
    assert [name for name in names if f"figures/{name})" not in text] == []


def test_table_of_the_papers_is_made_from_the_ledger():
    entry = json.loads((FOLDER / "manifest.json").read_text())[figures.PAPERS]
    assert entry["file"] == f"figures/{figures.CLAIMS}"
    assert entry["source_sha256"] == paths.sha256(FOLDER / figures.CLAIMS)


def test_rewrite_changes_nothing_that_is_up_to_date(tmp_path, monkeypatch):
    for page in (pages.README, pages.RESULTS, pages.PROFILES, pages.GPU, measured.RESULTS):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_bytes((paths.root() / page).read_bytes())
    for name in ("figures", "params"):
        shutil.copytree(paths.root() / name, tmp_path / name)
    committed = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    figures.rewrite()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == committed


def test_committed_results_are_those_that_the_pages_show():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    for name in figures.COMMITTED:
        source = verify.folder(manifest[name]["profile"]) / name
        assert source.read_bytes() == (FOLDER / name).read_bytes()
