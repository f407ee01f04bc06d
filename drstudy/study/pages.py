"""The generated tables of the pages: README.md, docs/results.md, docs/profiles.md and docs/gpu.md.

A page has a block ``<!-- begin: NAME --> ... <!-- end: NAME -->`` for each of its tables. :func:`write` fills all blocks from the files
under ``figures/``, from the declarations of the papers, from the profiles and from what benchmarks measured, so no number on a page is typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from drstudy.core import paths
from drstudy.papers import registry
from drstudy.papers.base import AUDIT, TRAINING, Paper, Profile, Shown
from drstudy.study import claims, measured, plan

README, RESULTS, PROFILES, GPU = "README.md", "docs/results.md", "docs/profiles.md", "docs/gpu.md"
"""The pages with generated blocks."""

CLAIMS = "claims.csv"
"""The ledger under ``figures/``. It is judged from all results of the profile, so it belongs to no single run."""

PAPERS = "papers.csv"
"""Paper, question, notebooks and verdicts, made from the declarations of the papers and from :data:`CLAIMS`."""

COMMITTED = ("settings.csv", "costs.csv")
"""Files under ``figures/`` that are those of the committed results of the profile, ``reference/<profile>/``."""

SHARED = "../shared/data/"
"""Where the subsets of public data sets lie that are not part of the project; the table of the profiles leaves it out."""

NO_CLAIM = "no claim to judge"


class PageError(ValueError):
    """A page cannot be filled."""


def shown() -> dict[str, Shown]:
    """Files of results that the pages show, by the name of the file under ``figures/``."""
    return {one.name: one for paper in registry.PAPERS for one in paper.figures}


def result_blocks() -> dict[str, str]:
    """Blocks of :data:`RESULTS`: the name of each and the table under ``figures/`` that it is made from."""
    tables = [*COMMITTED, *(name for name in shown() if name.endswith(".csv")), CLAIMS]
    return {name.removesuffix(".csv"): name for name in tables}


def papers(ledger: pd.DataFrame) -> pd.DataFrame:
    """One row per paper or question of this study, in the order of their notebooks, with the verdicts of its claims.

    Args:
        ledger: Texts with the columns ``claim``, ``place`` and ``verdict``, one row per claim.

    Returns:
        Texts: ``paper``, ``question``, ``notebooks`` (names with spaces between) and ``verdict``.

    Raises:
        PageError: If a claim of a paper is not in the ledger.
    """
    verdicts = ledger.set_index(["claim", "place"])["verdict"].to_dict()
    rows = [
        {
            "paper": paper.citation,
            "question": paper.question,
            "notebooks": " ".join(notebook.name for notebook in paper.notebooks),
            "verdict": _verdict(paper, verdicts),
        }
        for paper in sorted(registry.PAPERS, key=lambda paper: paper.notebooks[0].name)
    ]
    return pd.DataFrame(rows)


def _verdict(paper: Paper, verdicts: Mapping[tuple[str, str], str]) -> str:
    """How many claims of a paper have each verdict, the best one first."""
    own = [claim for claim in claims.read() if claim.paper == paper.citation]
    found = []
    for claim in own:
        key = (claim.says, f"{claim.paper}, {claim.place}")
        if key not in verdicts:
            raise PageError(
                f"figures/{CLAIMS} has no claim {claim.id!r}. Run `drstudy figures` with finished results."
            )
        found.append(verdicts[key])
    if not own:
        return NO_CLAIM
    counts = [f"{found.count(name)} {name}" for name in reversed(claims.WORST_FIRST) if name in found]
    return f"{len(own)} claims: {', '.join(counts)}"


def profiles() -> pd.DataFrame:
    """One row per profile: what it is for, its photographs, the networks that it trains or looks at, its notebooks and what must run first."""
    return pd.DataFrame([_profile_row(plan.profile(name)) for name in plan.profiles()])


def _profile_row(profile: Profile) -> dict[str, str]:
    settings = plan.stage(AUDIT, profile.name).parameters().upper()
    root = "" if SHARED in settings["DATA_ROOT"] else settings["DATA_ROOT"]
    networks = f"{', '.join(profile.backbones)}; {_counted(profile.seeds, 'seed')}"
    trains = not profile.models_from and profile.runs(TRAINING)
    if profile.models_from:
        networks = f"those of `{profile.models_from}`"
    elif not trains:
        networks = "none"
    needed = [need.split("/")[1] for stage in plan.plan(profile.name, "all") for need in stage.needs]
    first = [name for name in dict.fromkeys(needed) if name != profile.name]
    return {
        "profile": f"[`{profile.name}`](../params/{profile.name})",
        "what it is": profile.description,
        "photographs": f"{settings['SOURCE']}, `{root}`" if root else settings["SOURCE"],
        "fine-tuned networks": networks,
        "notebooks": ", ".join(name[:2] for name in profile.notebooks) or "all of the chosen study",
        "run first": ", ".join(f"`{name}`" for name in first) or "–",
    }


def _counted(things: Iterable[object], noun: str) -> str:
    number = len(list(things))
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cost(costs: pd.DataFrame) -> pd.DataFrame:
    """What the core study took under each setting.

    Args:
        costs: Texts of ``figures/costs.csv``: its last row is the core study, and each setting has a column of core-minutes and one of GiB.

    Returns:
        Texts, one row per setting.
    """
    last = costs.iloc[-1]
    settings = [head.removesuffix(", GiB") for head in costs.columns if head.endswith(", GiB")]
    return pd.DataFrame(
        {
            "setting": settings,
            "core-minutes, all notebooks": [last[f"{name}, core-minutes"] for name in settings],
            "memory of the largest process, GiB": [last[f"{name}, GiB"] for name in settings],
        }
    )


def tables(folder: Path) -> dict[str, dict[str, pd.DataFrame]]:
    """The tables of all blocks, as texts, by page and by name.

    Args:
        folder: The folder ``figures/``.
    """
    declared = shown()
    results = {}
    for name, file in result_blocks().items():
        table = _texts(folder / file)
        if file in declared and declared[file].rows:
            table = table[table.iloc[:, 0].str.startswith(declared[file].rows)]
        results[name] = table
    rows = measured.read()
    overview = _texts(folder / PAPERS)
    overview["notebooks"] = [
        " ".join(f"[{name[:2]}](notebooks/{name}.ipynb)" for name in names.split())
        for names in overview["notebooks"]
    ]
    return {
        README: {"papers": overview, "cost": cost(results["costs"])},
        RESULTS: results,
        PROFILES: {"profiles": profiles()},
        GPU: {
            "gpu_speed": measured.speed(rows),
            "gpu_computed": measured.computed(rows),
            "rehearsal": measured.rehearsal(rows),
        },
    }


def _texts(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def filled(text: str, page: str, contents: Mapping[str, pd.DataFrame]) -> str:
    """The text of a page with each block filled.

    Args:
        text: The page as it is.
        page: Its path, for the error.
        contents: The table of each block, as texts.

    Raises:
        PageError: If the page lacks a block.
    """
    for name, table in contents.items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise PageError(
                f"{page} has no block for {name}. Add the lines <!-- begin: {name} --> and <!-- end: {name} -->."
            )
        body = markdown(table)
        text = pattern.sub(lambda match, body=body: match[1] + body + match[2], text)
    return text


def write(folder: Path) -> list[Path]:
    """Fill the blocks of all pages.

    Args:
        folder: The folder ``figures/``.

    Returns:
        The pages.

    Raises:
        PageError: If a page lacks a block.
    """
    written = []
    for page, contents in tables(folder).items():
        file = paths.root() / page
        text = filled(file.read_text(encoding="utf-8"), page, contents)
        with paths.atomic(file) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        written.append(file)
    return written


def markdown(table: pd.DataFrame) -> str:
    """A table of texts in GitHub's form."""
    heads = ["" if str(head).startswith("Unnamed") else str(head) for head in table.columns]
    rows = [heads, ["---"] * len(heads), *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
