"""The explorer as plain logic: what is chosen, which choices there are, and what is shown. Menus only set it."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from drstudy.core.names import GRADE_NAMES, NAMES
from drstudy.papers.explorer import eyes, figures
from drstudy.papers.explorer.collection import Collection, Seen
from drstudy.papers.explorer.eyes import ANY_GRADE, View
from drstudy.papers.explorer.params import Explorer

NO_OTHER = -1
"""Place of the second system if there is none beside the first."""

ORDERS = {
    eyes.BY_NAME: "by name",
    eyes.BY_GRADING: "worst graded first",
    eyes.BY_MAP: "worst map first",
}
"""Orders of eyes, as menus show them."""


@dataclass(frozen=True)
class Choice:
    """What is chosen. Places are those of :attr:`Collection.systems`; see :class:`drstudy.papers.explorer.params.Explorer`."""

    profile: str
    system: int = 0
    map_name: str = ""
    other: int = NO_OTHER
    other_map: str = ""
    grade: int = ANY_GRADE
    outcome: str = "any"
    lesion: str = ""
    order: str = eyes.BY_NAME
    eye: str = ""
    cut: float = 0.0


def start(p: Explorer, collection: Collection, image_id: str) -> Choice:
    """What the parameters of the notebook choose.

    Args:
        p: Parameters.
        collection: What is looked at.
        image_id: The eye that is shown.
    """
    other = p.other if p.other < len(collection.systems) and p.other != p.system else NO_OTHER
    return Choice(
        profile=collection.profile,
        system=p.system,
        map_name=p.map_name,
        other=other,
        other_map=p.other_map,
        grade=p.grade,
        outcome=p.outcome,
        lesion=p.lesion,
        eye=image_id,
        cut=p.cut,
    )


class Browser:
    """Holds a choice, and mends it where another choice made a part of it impossible.

    Args:
        collection: What is looked at first.
        open_profile: Gives the collection of another profile.
        profiles: Names that ``open_profile`` takes.
        start: The first choice.
    """

    def __init__(
        self,
        collection: Collection,
        open_profile: Callable[[str], Collection],
        profiles: Sequence[str],
        start: Choice | None = None,
    ) -> None:
        self.collection, self.open_profile = collection, open_profile
        self.profiles = list(dict.fromkeys([collection.profile, *profiles]))
        self.choice = self._mended(start or Choice(collection.profile))

    def set(self, **changes: Any) -> Choice:
        """Change the choice; what no longer fits falls back to the first there is.

        Raises:
            TypeError: If there is nothing of that name to choose.
        """
        wanted = replace(self.choice, **changes)
        if wanted.profile != self.collection.profile:
            self.collection = self.open_profile(wanted.profile)
            wanted = Choice(wanted.profile)
        self.choice = self._mended(wanted)
        return self.choice

    def _mended(self, choice: Choice) -> Choice:
        systems = self.collection.systems
        system = choice.system if choice.system < len(systems) else 0
        other = choice.other if NO_OTHER < choice.other < len(systems) else NO_OTHER
        choice = replace(choice, system=system, other=other)
        for name, place in (("map_name", system), ("other_map", other)):
            known = list(systems[place].maps) if place != NO_OTHER else []
            if getattr(choice, name) not in known:
                choice = replace(choice, **{name: known[0] if known else ""})
        if choice.order not in eyes.orders(self.collection, systems[system]):
            choice = replace(choice, order=eyes.BY_NAME)
        names = self._fitting(choice)
        return choice if choice.eye in names else replace(choice, eye=names[0] if names else "")

    def _fitting(self, choice: Choice) -> list[str]:
        seen = self.collection.systems[choice.system]
        chosen = (choice.grade, choice.outcome, choice.lesion, choice.order, choice.map_name)
        return eyes.choose(self.collection, seen, *chosen)

    # --- choices ----------------------------------------------------------------------------------------

    @property
    def seen(self) -> Seen:
        """The first system."""
        return self.collection.systems[self.choice.system]

    def names(self) -> list[str]:
        """The eyes that fit, in order."""
        return self._fitting(self.choice)

    def systems(self, none: bool = False) -> list[tuple[str, int]]:
        """Names and places of the systems; with ``none`` also of no system."""
        found = [(seen.label, place) for place, seen in enumerate(self.collection.systems)]
        return [("none", NO_OTHER), *found] if none else found

    def maps(self, place: int) -> list[str]:
        """Names of the maps of a system."""
        return list(self.collection.systems[place].maps) if place != NO_OTHER else []

    def lesions(self) -> list[tuple[str, str]]:
        """Names and codes of the lesions that some test eye has."""
        there = (self.collection.lesions > 0).any()
        return [("any eye", ""), *((NAMES[code], code) for code in there.index[there])]

    @staticmethod
    def grades() -> list[tuple[str, int]]:
        """Names and numbers of the grades."""
        return [("any", ANY_GRADE), *((f"{grade} {name}", grade) for grade, name in enumerate(GRADE_NAMES))]

    def orders(self) -> list[tuple[str, str]]:
        """Words and names of the orders that the first system has."""
        return [(ORDERS[name], name) for name in eyes.orders(self.collection, self.seen)]

    def step(self, by: int) -> Choice:
        """Turn to another eye of those that fit; after the last comes the first."""
        names = self.names()
        if not names:
            return self.choice
        return self.set(eye=names[(names.index(self.choice.eye) + by) % len(names)])

    # --- what is shown ----------------------------------------------------------------------------------

    def views(self) -> list[View]:
        """The chosen eye through the first system, and through the second if it is chosen and knows the eye."""
        choice = self.choice
        if not choice.eye:
            return []
        found = [eyes.view(self.collection, choice.eye, self.seen, choice.map_name, choice.cut)]
        if choice.other != NO_OTHER:
            other = self.collection.systems[choice.other]
            if choice.eye in other.answers.index:
                found.append(eyes.view(self.collection, choice.eye, other, choice.other_map, choice.cut))
        return found

    def show(self) -> tuple[bytes, str]:
        """A picture (JPEG; empty if no eye fits) and the text below it (HTML)."""
        found = self.views()
        if not found:
            return b"", "<p>No test eye fits. Widen the choice of grade, outcome or lesion.</p>"
        names = self.names()
        place = f"eye {names.index(self.choice.eye) + 1} of {len(names)}"
        return figures.jpeg(figures.eye(found)), f"<p>{place}</p>" + "".join(map(_text, found))


def _text(view: View) -> str:
    """The scores of a view as HTML."""
    title = f"<p><b>{html.escape(view.label)}</b>: {html.escape(view.answer)}. "
    if view.heat is None:
        return f"{title}It has no map of this eye.</p>"
    if view.scores.empty:
        return f"{title}The eye has no lesion that {html.escape(view.map_name)} could find, or none was outlined.</p>"
    return f"{title}Scores of {html.escape(view.map_name)}:</p>" + _table(view.scores)


def _table(scores: pd.DataFrame) -> str:
    """Scores with two digits as an HTML table; wide spaces stand in for a style, which front ends may take out."""
    heads = "".join(f"<th>&emsp;{name}</th>" for name in scores)
    rows = "".join(
        f"<tr><td>&emsp;{name}</td><td>&emsp;{float(own):.2f}</td><td>&emsp;{float(uniform):.2f}</td></tr>"
        for name, own, uniform in scores.to_numpy()
    )
    return f"<table><tr>{heads}</tr>{rows}</table>"
