"""`make docs`: the site has every page and notebook, leads nowhere else than where it should, and needs no network to be read."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drstudy.core import paths

ROOT = paths.root()
SOURCES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("notebooks/*.md"),
    *ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("myst_nb") is None,
        reason="the extra `docs` is not installed: pip install -c constraints.txt -e '.[docs]'",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built from copies without network; a warning of Sphinx is an error."""
    base = tmp_path_factory.mktemp("docs")
    copy = base / "project"
    names = ("docs", "notebooks", "params", "figures", "reference", "benchmarks")
    for name in names:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests").mkdir()
    for file in (*ROOT.glob("*.md"), ROOT / "CITATION.cff", ROOT / "tests" / "README.md"):
        shutil.copy2(file, copy / file.relative_to(ROOT))
    for other in ("cluster", "drstudy"):
        (copy / other).symlink_to(ROOT / other)
    before = {file: file.read_bytes() for file in copy.glob("notebooks/*.ipynb")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-b",
            "html",
            "-c",
            "docs",
            ".",
            base / "site",
        ],
        cwd=copy,
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {file: file.read_bytes() for file in before} == before, "no notebook runs again"
    return base / "site"


def test_every_page_and_notebook_is_there(site):
    for source in SOURCES:
        assert (site / source.relative_to(ROOT)).with_suffix(".html").is_file(), source.name


def test_links_lead_somewhere(site):
    broken = []
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"]+)"', html):
            name, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (page.parent / name.partition("?")[0]).resolve() if name else page
            lost = not target.exists()
            if not lost and anchor and target.suffix == ".html":
                lost = f'id="{anchor}"' not in target.read_text(encoding="utf-8")
            if lost:
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_nothing_is_fetched_when_a_page_is_read(site):
    fetched = [
        f"{page.name}: {tag}"
        for page in site.rglob("*.html")
        for tag in re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', page.read_text("utf-8")
        )
    ]
    assert fetched == []


def test_outputs_of_the_notebooks_are_shown(site):
    page = (site / "notebooks" / "04_backbone_comparison.html").read_text(encoding="utf-8")
    assert 'class="cell_output' in page
    assert "<img" in page
