"""Figures of notebook 05: heatmaps over photographs, cases chosen by a rule, and shares beside chance.

Maps are drawn twice: as the main paper printed them (each scaled to its own maximum, jet, *spec* A6), and on
a scale that keeps their units and a colour map whose lightness rises with the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.show import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from drstudy.explain.measures.localisation import Masks

OUTLINES = {
    "MA": ("microaneurysm", "#56B4E9", "solid"),
    "HE": ("haemorrhage", "#FFFFFF", "solid"),
    "EX": ("hard exudate", "#00C08B", "solid"),
    "SE": ("soft exudate", "#00C08B", "dashed"),
    "IRMA": ("IRMA", "#56B4E9", "dashed"),
    "VB": ("venous beading", "#F0E442", "dashed"),
    "NV": ("new vessels", "#F0E442", "solid"),
    "PRH": ("pre-retinal haemorrhage", "#FFFFFF", "dashed"),
    "DISC": ("optic disc", "#FFFFFF", "dotted"),
}
"""Name, colour and line of each outline: light colours of the Okabe-Ito set, far from those of heat."""

HEAT_COLOURS = "inferno"
LAYER_COLOURS = ("#E69F00", "#56B4E9", "#555555", "#009E73")

SEVERE = 3
"""Grades from here on are severe: the paper's own line between eyes whose vision is at risk and others."""


def choose_cases(predictions: pd.DataFrame) -> pd.DataFrame:
    """The eyes of figure 5, by a rule and never by hand.

    - ``right``: of the eyes graded correctly, a severe one (grade 3 or 4; failing that, of the highest
      grade), the one with the highest confidence.
    - ``wrong``: of the eyes graded wrongly, a severe one (failing that, of the highest grade) that was called
      the lowest grade, the one with the highest confidence: severe disease missed, the paper's failure.
    - ``borderline``: of the others, the eye with the smallest margin between its two most probable grades.
    - ``certain``: only where no eye has a grade, and so none is right or wrong: the eye with the highest
      confidence.

    Ties go to the first ``image_id``. The order of the rows does not matter.

    Args:
        predictions: One row an eye: ``image_id``, ``grade`` (may be missing), ``p0`` to ``p4``.

    Returns:
        One row a case, in the order right, borderline, wrong, certain: ``case``, ``image_id`` (empty where
        there is no such eye), ``grade``, ``predicted``, ``confidence``, ``margin`` and ``note``: why there is
        none, or where the rule gave way.
    """
    eyes = predictions.sort_values("image_id", ignore_index=True)
    ranked = np.sort(eyes[[f"p{k}" for k in range(5)]].to_numpy(float), axis=1)
    eyes = pd.DataFrame(
        {
            "image_id": eyes["image_id"],
            "grade": eyes["grade"].astype("Int64"),
            "predicted": eyes[[f"p{k}" for k in range(5)]].to_numpy(float).argmax(1),
            "confidence": ranked[:, -1],
            "margin": ranked[:, -1] - ranked[:, -2],
        }
    )
    graded = eyes.dropna(subset="grade").assign(severity=lambda t: t["grade"].clip(upper=SEVERE))
    correct = graded["grade"] == graded["predicted"]
    orders = {
        "right": (graded[correct], {"severity": False, "confidence": False}),
        "wrong": (graded[~correct], {"severity": False, "predicted": True, "confidence": False}),
        "borderline": (eyes, {"margin": True}),
    }
    if graded.empty:
        orders["certain"] = (eyes, {"confidence": False})
    rows: dict[str, dict] = {}
    for case, (among, order) in orders.items():
        among = among.sort_values(list(order), ascending=list(order.values()), kind="stable")
        taken = [row["image_id"] for row in rows.values()]
        first = among[~among["image_id"].isin(taken)].head(1).to_dict("records") or [{"image_id": ""}]
        rows[case] = {"case": case, **first[0], "note": _note(case, first[0], len(graded))}
    table = pd.DataFrame([rows.pop("right"), rows.pop("borderline"), *rows.values()])
    table = table.reindex(columns=["case", *eyes.columns, "note"])
    return table.astype({"grade": "Int64", "predicted": "Int64"})


def _note(case: str, eye: Mapping[str, object], graded: int) -> str:
    """Where the rule for a case found nobody, or had to give way."""
    if case in ("borderline", "certain"):
        return "" if eye["image_id"] else "no other eye is left"
    if not graded:
        return "the eyes have no grade"
    how = "correctly" if case == "right" else "wrongly"
    if not eye["image_id"]:
        return f"no eye was graded {how}"
    notes = [f"no severe eye was graded {how}"] if eye["grade"] < SEVERE else []
    if case == "wrong" and eye["predicted"] > eye["grade"]:
        notes.append("none of its kind was called too low")
    return "; ".join(notes)


def paper_heat(heat: np.ndarray) -> np.ndarray:
    """A map as the paper's tool writes it: scaled to its own minimum and maximum, jet, red is high (*spec*
    A6).

    Args:
        heat: (S, S).

    Returns:
        (S, S, 3) float RGB, 0..1.
    """
    import matplotlib as mpl

    from drstudy.explain.methods.cam import display

    return mpl.colormaps["jet"](display(np.asarray(heat, float)))[..., :3]


def paper_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The paper's overlay: 0.1 of the heat picture and 0.8 of the photograph scaled to 0..1 (*spec* A6).

    The weights sum to 0.9, so the result is darker than the photograph, and the heat is hard to see.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S).

    Returns:
        (S, S, 3) float RGB, 0..0.9.
    """
    low, high = float(image.min()), float(image.max())
    return 0.1 * paper_heat(heat) + 0.8 * (image.astype(float) - low) / max(high - low, 1)


def overlay(image: np.ndarray, heat: np.ndarray, highest: float) -> np.ndarray:
    """A legible overlay: the photograph in grey, and over it the heat, the more opaque the hotter.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S), at least 0, in its own units.
        highest: What is drawn as the hottest colour, the same for all maps that are to be compared.

    Returns:
        (S, S, 3) float RGB, 0..1.
    """
    import matplotlib as mpl

    grey = (image.astype(float) @ (0.299, 0.587, 0.114))[..., None] / 255
    scaled = np.clip(heat / highest, 0, 1) if highest > 0 else np.zeros_like(heat)
    alpha = 0.75 * np.sqrt(scaled)[..., None]
    return (1 - alpha) * grey + alpha * mpl.colormaps[HEAT_COLOURS](scaled)[..., :3]


def outline(axes: Axes, masks: Masks, width: float = 0.9) -> list[str]:
    """Draw the outlines of lesions and disc over a picture of the masks' size.

    Args:
        axes: Where the picture is.
        masks: Of the eye; shares of a pixel count from 0.25 on, so that small lesions keep an outline.
        width: Of the lines, points.

    Returns:
        The codes that were drawn.
    """
    from matplotlib import patheffects

    drawn = []
    for code, (_, colour, style) in OUTLINES.items():
        mask = masks.get(code)
        if mask is None or not (np.asarray(mask) >= 0.25).any():
            continue
        lines = axes.contour(
            np.asarray(mask, float), [0.25], colors=colour, linewidths=width, linestyles=style
        )
        lines.set_path_effects([patheffects.withStroke(linewidth=width + 0.8, foreground="black")])
        drawn.append(code)
    return drawn


def figure4(image: np.ndarray, heat: np.ndarray, masks: Masks, title: str = "") -> Figure:
    """One eye, as the paper's figure 4 shows it and as it can be read.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S), at least 0, unscaled.
        masks: Of the eye; may be empty.
        title: Above all panels.

    Returns:
        Photograph, the paper's heat picture, the paper's overlay, and ours with outlines and scale.
    """
    figure, axes = figures.new_figure(1, 4, 11, 3.4)
    highest = float(heat.max())
    panels = {
        "photograph": image,
        "heat, as printed": paper_heat(heat),
        "overlay, as printed": paper_overlay(image, heat),
        "overlay, legible": overlay(image, heat, highest),
    }
    for axis, (name, picture) in zip(axes[0], panels.items()):
        _show(axis, picture, name)
    _heat_bar(figure, axes[0, 3], highest)
    _legend(figure, [outline(axes[0, 3], masks)])
    figure.suptitle(title, fontsize=11)
    return figure


def figure5(
    cases: pd.DataFrame, images: Sequence[np.ndarray], heats: Sequence[np.ndarray], masks: Sequence[Masks]
) -> Figure:
    """The right, borderline and wrong eye: photograph, the paper's overlay, and ours on one scale for all.

    Args:
        cases: Rows of :func:`choose_cases` that have an eye.
        images, heats, masks: One for each row, as :func:`figure4` takes them.
    """
    figure, axes = figures.new_figure(len(cases), 3, 7.4, 2.4 * len(cases) + 0.6)
    highest = max(float(heat.max()) for heat in heats)
    drawn = []
    for row, (case, image, heat, mask) in enumerate(zip(cases.to_dict("records"), images, heats, masks)):
        _show(axes[row, 0], image, _caption(case))
        _show(axes[row, 1], paper_overlay(image, heat), "as printed" if row == 0 else "")
        _show(axes[row, 2], overlay(image, heat, highest), "legible, one scale" if row == 0 else "")
        drawn.append(outline(axes[row, 2], mask))
    _heat_bar(figure, axes[:, 2], highest)
    _legend(figure, drawn)
    return figure


def layers_panel(
    images: Sequence[np.ndarray],
    heats: Mapping[str, Sequence[np.ndarray]],
    masks: Sequence[Masks],
    labels: Sequence[str],
) -> Figure:
    """The same eyes at each candidate layer; one scale a layer, so that a column can be compared downwards.

    Args:
        images: E photographs, (S, S, 3) uint8 RGB.
        heats: Layer name to E maps (S, S), at least 0, unscaled.
        masks: Of the eyes.
        labels: Of the eyes, beside the rows.
    """
    columns = 1 + len(heats)
    figure, axes = figures.new_figure(len(images), columns, 2.3 * columns, 2.2 * len(images) + 0.7)
    drawn = []
    for row, (image, label) in enumerate(zip(images, labels)):
        _show(axes[row, 0], image, "photograph" if row == 0 else "")
        axes[row, 0].set_ylabel(label)
    for column, (layer, maps) in enumerate(heats.items(), 1):
        highest = max(float(heat.max()) for heat in maps)
        for row, (image, heat, mask) in enumerate(zip(images, maps, masks)):
            _show(axes[row, column], overlay(image, heat, highest), layer if row == 0 else "")
            drawn.append(outline(axes[row, column], mask))
        _heat_bar(figure, axes[:, column], highest)
    _legend(figure, drawn)
    return figure


def share_bars(summary: pd.DataFrame, group: str = "all") -> Figure:
    """Where the heat lies, beside chance: shares of the partition, and how many times chance each mask gets.

    Args:
        summary: Of :func:`drstudy.explain.measures.localisation.summarise`.
        group: Which group's rows.
    """
    summary = summary[(summary["group"] == group) & (summary["eyes"] > 0)]
    layers = list(summary["layer"].unique())
    figure, axes = figures.new_figure(1, 2, 10.5, 4)
    parts = summary[(summary["kind"] == "part") & (summary["region"] != "elsewhere")]
    _grouped(axes[0, 0], parts, layers, "heat", 100)
    axes[0, 0].set(
        ylabel="share of the heat in the field of view, %", title="Heat by structure, 95 % intervals"
    )
    _grouped(axes[0, 1], summary[summary["kind"] == "mask"], layers, "enrichment", 1)
    axes[0, 1].axhline(1, color=figures.NEUTRAL, linestyle="dashed", zorder=0)
    axes[0, 1].set(ylabel="heat share / area share", title="Times chance (1: a uniform map)")
    axes[0, 1].set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


AGAINST_COLOURS = {"random": "#6f6f6f", "centre": "#E69F00", "intensity": "#56B4E9", "vessels": "#882255"}
"""One colour a baseline, of the Okabe-Ito and Tol sets."""

METHOD_NAMES = {
    "grad_cam": "Grad-CAM",
    "grad_cam++": "Grad-CAM++",
    "hires_cam": "HiRes-CAM",
    "layer_cam": "Layer-CAM",
    "score_cam": "Score-CAM",
    "eigen_cam": "Eigen-CAM",
    "guided_backprop": "guided backprop",
    "integrated_gradients": "integrated gradients",
}


FEWEST_SHOWN = 8
"""Fewer eyes are in the table and not in the figure, whose scale their intervals would stretch."""


def beyond_chance(found: pd.DataFrame, metrics: Mapping[str, str], regions: Sequence[str]) -> Figure:
    """What a map scores beyond each of the four baselines, by lesion: points right of the line are beyond chance.

    The pointing game is in percentage points; other scores, which grow with the lesions' area, in percent of the
    baseline's own mean score.

    Args:
        found: Of :func:`drstudy.explain.measures.comparison.differences` for one map and group, by baseline.
        metrics: Column to name, one panel each.
        regions: From top to bottom; those with fewer than :data:`FEWEST_SHOWN` eyes are left out.
    """
    shown = [region for region in regions if _most(found, region) >= FEWEST_SHOWN]
    figure, axes = figures.new_figure(
        1, len(metrics), 3.6 * len(metrics) + 1, 0.62 * max(len(shown), 1) + 1.9, sharey=True
    )
    for axis, (metric, name) in zip(axes[0], metrics.items()):
        axis.axvline(0, color="black", lw=1)
        for offset, (against, colour) in zip((-0.27, -0.09, 0.09, 0.27), AGAINST_COLOURS.items()):
            rows = found[(found["metric"] == metric) & found["against"].str.startswith(f"{against} ")]
            rows = rows.set_index("region").reindex(shown)
            scale = 1 if metric == "hit" else 1 / rows["other"].where(rows["other"] > 0)
            _forest(axis, rows, offset, colour, f"against {against}", scale)
        axis.set(
            title=name, xlabel="more, percentage points" if metric == "hit" else "more, % of the baseline's"
        )
    if not shown:
        axes[0, 0].text(0.5, 0.5, "no lesion in enough eyes", ha="center", transform=axes[0, 0].transAxes)
    axes[0, 0].set_yticks(range(len(shown)), [f"{region} ({_most(found, region)} eyes)" for region in shown])
    axes[0, 0].invert_yaxis()
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def _most(found: pd.DataFrame, region: str) -> int:
    eyes = found.loc[found["region"] == region, "eyes"]
    return int(eyes.max()) if len(eyes) else 0


def _forest(
    axes: Axes, rows: pd.DataFrame, offset: float, colour: str, label: str, scale: pd.Series | float = 1
) -> None:
    """Points with intervals, one a row; hollow where there is no interval."""
    ends = [100 * rows[f"difference{end}"] * scale for end in ("", "_lo", "_hi")]
    middle, low, high = (end.to_numpy(float) for end in ends)
    y = np.arange(len(rows)) + offset
    error = np.nan_to_num(np.clip([middle - low, high - middle], 0, None))
    axes.errorbar(middle, y, xerr=error, fmt="none", ecolor=colour, elinewidth=1.6, capsize=2)
    sure = ~np.isnan(low)
    axes.plot(middle[sure], y[sure], "o", color=colour, markersize=5, label=label)
    axes.plot(middle[~sure], y[~sure], "o", markerfacecolor="white", color=colour, markersize=5)


def methods_beside(
    found: pd.DataFrame, metrics: Mapping[str, str], names: Sequence[str], title: str = ""
) -> Figure:
    """Maps side by side: each score less that of random maps on its own grid.

    Args:
        found: Of :func:`drstudy.explain.measures.comparison.differences` against ``random``, one region.
        metrics: Column to name, one panel each.
        names: Maps from top to bottom.
        title: Above all panels.
    """
    figure, axes = figures.new_figure(
        1, len(metrics), 3.4 * len(metrics) + 1.6, 0.32 * len(names) + 1.5, sharey=True
    )
    for axis, (metric, name) in zip(axes[0], metrics.items()):
        rows = found[found["metric"] == metric].set_index("layer").reindex(names)
        axis.axvline(0, color="black", lw=1)
        for kind, colour in (("finer", "#009E73"), ("", "#332288")):
            other = rows.index.str.startswith("finer") != bool(kind)
            _forest(axis, rows.mask(np.broadcast_to(other[:, None], rows.shape)), 0, colour, kind)
        axis.set(title=name, xlabel="minus random, points")
    axes[0, 0].set_yticks(range(len(names)), [METHOD_NAMES.get(name, name) for name in names])
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, fontsize=11)
    return figure


def cascade(found: pd.DataFrame, survives: float) -> Figure:
    """How alike a map stays as the weights become random, from the head down.

    Args:
        found: Of :func:`drstudy.explain.checks.verdicts.sane`.
        survives: Rank correlation above which a map is said to survive.
    """
    rows = found[found["check"] == "random weights"]
    figure, axes = figures.new_figure(1, 2, 10, 4)
    for axis, (column, name) in zip(axes[0], (("spearman", "rank correlation"), ("ssim", "SSIM"))):
        for (method, part), colour in zip(
            rows.groupby("method", sort=False), ("#332288", "#D55E00", "#56B4E9")
        ):
            x = [0, *part["step"]]
            line = np.concatenate([[1], part[column].to_numpy(float)])
            axis.plot(x, line, "o-", color=colour, label=METHOD_NAMES.get(method, method))
            low, high = (
                np.concatenate([[1], part[f"{column}_{end}"].to_numpy(float)]) for end in ("lo", "hi")
            )
            axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        stages = rows.drop_duplicates("step")
        axis.set_xticks(
            [0, *stages["step"]],
            ["trained", *(_deepest(stage) for stage in stages["stage"])],
            rotation=35,
            ha="right",
            rotation_mode="anchor",
        )
        axis.set(
            title=f"{name} with the trained map", xlabel="random from the head down to", ylim=(-0.35, 1.05)
        )
        axis.axhline(0, color="black", lw=0.8)
    axes[0, 0].axhline(
        survives, color=figures.NEUTRAL, linestyle="dashed", label=f"survives above {survives:g}"
    )
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def _deepest(stage: str) -> str:
    """Of ``features.conv0 to features.denseblock1`` the part nearest to the photograph: ``conv0``."""
    return stage.split(" to ")[0].removeprefix("features.").lstrip("_")


def _grouped(axes: Axes, table: pd.DataFrame, layers: Sequence[str], value: str, scale: float) -> None:
    """Bars (shares) or points (ratios) for each region and layer, with intervals, and chance as a line."""
    regions = list(table["region"].unique())
    if not regions:
        axes.text(0.5, 0.5, "no mask in these eyes", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    width = 0.8 / len(layers)
    for i, layer in enumerate(layers):
        rows = table[table["layer"] == layer].set_index("region").reindex(regions)
        x = np.arange(len(regions)) + (i - (len(layers) - 1) / 2) * width
        middle = scale * rows[value].to_numpy(float)
        low, high = (scale * rows[f"{value}_{end}"].to_numpy(float) for end in ("lo", "hi"))
        error = np.clip(np.vstack([middle - low, high - middle]), 0, None)
        colour = LAYER_COLOURS[i % len(LAYER_COLOURS)]
        if value == "heat":
            axes.bar(x, middle, width, yerr=error, color=colour, ecolor="black", capsize=2, label=layer)
            chance = "area share (chance)" if i == 0 else None
            axes.hlines(
                scale * rows["area"], x - width / 2, x + width / 2, color="#D55E00", lw=2, label=chance
            )
        else:
            axes.errorbar(x, middle, error, fmt="o", color=colour, ecolor=colour, capsize=2)
    slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(regions) > 5 else {}
    axes.set_xticks(range(len(regions)), regions, **slanted)


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _heat_bar(figure: Figure, axes: Axes | np.ndarray, highest: float) -> None:
    """A colour bar in the maps' own units."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, highest if highest > 0 else 1), HEAT_COLOURS)
    bar = figure.colorbar(colours, ax=axes, location="bottom", fraction=0.05, aspect=25, pad=0.02)
    bar.set_label("evidence for the class, score per position", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=3)


def _legend(figure: Figure, drawn: Sequence[Sequence[str]]) -> None:
    """One legend for all outlines that were drawn."""
    from matplotlib.lines import Line2D

    codes = [code for code in OUTLINES if any(code in some for some in drawn)]
    if codes:
        lines = [Line2D([], [], color=OUTLINES[code][1], linestyle=OUTLINES[code][2], lw=2) for code in codes]
        names = [OUTLINES[code][0] for code in codes]
        columns = max(1, min(len(codes), int(figure.get_figwidth() / 1.8)))
        look = {"facecolor": "#5a4a42", "labelcolor": "white", "frameon": True}
        figure.legend(lines, names, loc="outside lower center", ncols=columns, **look)


def _caption(case: Mapping[str, object]) -> str:
    grade = "no grade" if pd.isna(case["grade"]) else f"grade {case['grade']}"
    return f"{case['case']}: {grade}, called {case['predicted']} ({100 * case['confidence']:.0f} %)"
