"""Menus and sliders around a :class:`drstudy.papers.explorer.browser.Browser`. ``ipywidgets`` is loaded here alone, and only when asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from drstudy.core import records
from drstudy.papers.explorer.browser import Browser

if TYPE_CHECKING:
    import ipywidgets

FRONT_ENDS = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")
"""Environment variables of kernels that a front end started: JupyterLab or Notebook, Visual Studio Code, Colab."""


def wanted(asked: str) -> bool:
    """Whether menus are shown: ``on``, ``off``, or with ``auto`` where a front end started this kernel, and not the runner of a stage."""
    if asked != "auto":
        return asked == "on"
    return records.RUN_ID not in os.environ and any(name in os.environ for name in FRONT_ENDS)


def build(browser: Browser) -> ipywidgets.Widget:
    """Menus that set the browser, and below them the eye.

    Raises:
        ImportError: If ipywidgets is not installed, with what to do.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError(
            "Menus need ipywidgets: `pip install ipywidgets`, or set WIDGETS to 'off'."
        ) from error
    return _Menus(browser, ipywidgets).whole


class _Menus:
    """The widgets; each menu is named as the part of the choice that it sets."""

    def __init__(self, browser: Browser, widgets: Any) -> None:
        self.browser, self.filling = browser, False
        wide = widgets.Layout(width="auto")
        column = widgets.Layout(width="33%", padding="0 1em 0 0", overflow="hidden")
        described = {
            "profile": "profile",
            "system": "system",
            "map_name": "its map",
            "other": "beside",
            "other_map": "its map",
            "grade": "grade",
            "outcome": "graded",
            "lesion": "with",
            "order": "order",
            "eye": "eye",
        }
        self.menus = {
            name: widgets.Dropdown(description=text, layout=wide) for name, text in described.items()
        }
        self.cut = widgets.FloatSlider(
            description="cut", min=0, max=0.95, step=0.05, continuous_update=False, readout_format=".0%"
        )
        self.before = widgets.Button(description="previous eye")
        self.after = widgets.Button(description="next eye")
        self.picture = widgets.Image(format="jpeg")
        self.text = widgets.HTML()
        hint = widgets.HTML("<small>0 %: cut fixed on validation; else share of maximum</small>")
        m = self.menus
        choices = widgets.HBox(
            [
                widgets.VBox([m[name] for name in ("profile", "grade", "outcome", "lesion")], layout=column),
                widgets.VBox(
                    [m[name] for name in ("system", "map_name", "other", "other_map")], layout=column
                ),
                widgets.VBox(
                    [m["order"], m["eye"], widgets.HBox([self.before, self.after]), self.cut, hint],
                    layout=column,
                ),
            ]
        )
        self.whole = widgets.VBox([choices, self.picture, self.text])
        self._fill()
        for name, menu in m.items():
            menu.observe(lambda change, name=name: self._set(**{name: change["new"]}), "value")
        self.cut.observe(lambda change: self._set(cut=change["new"]), "value")
        self.before.on_click(lambda _: self._step(-1))
        self.after.on_click(lambda _: self._step(1))

    def _set(self, **changes: Any) -> None:
        """A menu was used."""
        if self.filling or None in changes.values():
            return
        self.browser.set(**changes)
        self._fill()

    def _step(self, by: int) -> None:
        self.browser.step(by)
        self._fill()

    def _fill(self) -> None:
        """Bring all menus and the picture to the choice."""
        browser, choice = self.browser, self.browser.choice
        options = {
            "profile": browser.profiles,
            "system": browser.systems(),
            "map_name": browser.maps(choice.system),
            "other": browser.systems(none=True),
            "other_map": browser.maps(choice.other),
            "grade": browser.grades(),
            "outcome": ["any", "right", "wrong"],
            "lesion": browser.lesions(),
            "order": browser.orders(),
            "eye": browser.names(),
        }
        self.filling = True
        try:
            for name, menu in self.menus.items():
                if list(menu.options) != list(options[name]):
                    menu.options = options[name]
                if options[name]:
                    menu.value = getattr(choice, name)
            self.cut.value = choice.cut
        finally:
            self.filling = False
        self.picture.value, self.text.value = browser.show()
