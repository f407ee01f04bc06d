"""Notebook 23: which systems, eyes and maps can be looked at, in which order, what is seen of one eye; and the menus."""

from __future__ import annotations

import dataclasses
import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fabricated import NETWORKS, graded
from sklearn.metrics import average_precision_score
from trained_eyes import MODEL, SIZE, VARIANT, audit

from drstudy.core import records
from drstudy.data import dataset
from drstudy.evaluation import common
from drstudy.explain.measures import common_maps, localisation
from drstudy.explain.methods import cam
from drstudy.papers.base import System
from drstudy.papers.explorer import browser, collection, eyes, figures, menus, params
from drstudy.papers.ram.params import Ram
from drstudy.papers.transfer.params import FineTuning, HeatmapAnalysis
from drstudy.study import plan
from drstudy.training import prediction

matplotlib.use("agg")

SCORED = System(id="scored", name="Scored (ours)", notebook="11_ram")
SYSTEMS = (NETWORKS, SCORED)
MAPPED = f"results/smoke/05_heatmap_analysis/{VARIANT}"
AUDIT, RAM = "results/smoke/01_data_audit", "results/smoke/11_ram"


def lesion_maps(data, masks_of) -> tuple[np.ndarray, pd.DataFrame]:
    """Maps of 32 cells that are 3 on the lesion and below 1 elsewhere; every second test eye has its map turned upside down."""
    both = common.eyes(data.part("test"), data.part("validation"))
    found = []
    for place, (name, split) in enumerate(zip(both["image_id"], both["split"])):
        cells = masks_of(name)["EX"].reshape(32, SIZE // 32, 32, SIZE // 32).max((1, 3)) > 0.4
        one = np.where(cells, 3.0, np.linspace(0, 0.9, 32)[None].repeat(32, 0))
        found.append(one[::-1] if split == "test" and place % 2 else one)
    return np.stack(found), both


@pytest.fixture
def finished(own_folders):
    """A network with maps at two layers and of disease, and a system with a score and no maps."""
    record = audit(own_folders / "eyes", "phantom")
    data, masks_of = dataset.load(record), localisation.masks_of(record)
    run = records.start(FineTuning())
    test = graded(data.table[data.table["split"] != "train"], 2, 5)
    prediction.write(test.drop(columns="row"), run.path("predictions.csv"))
    run.metric(weights_used="bundled")
    run.finish()
    run = records.start(HeatmapAnalysis(model=MODEL, variant=VARIANT))
    maps, both = lesion_maps(data, masks_of)
    common_maps.save(run.path(common_maps.FILE), {"lesion": maps}, both)
    names = data.part("test")["image_id"].to_numpy(str)
    raw = {
        layer: np.full((len(names), 3, 3), value, np.float32) for layer, value in (("early", 1), ("last", 2))
    }
    explained = cam.Explained(raw, np.zeros((len(names), 5)), np.zeros(len(names), int), names)
    cam.save_maps(explained, run.path("maps.npz"))
    run.finish()
    run = records.start(Ram())
    score = both["grade"].to_numpy(float) + 0.3
    common.write(common.frame(both, score), run.path(common.FILE))
    run.finish()
    return record


@pytest.fixture
def found(finished):
    return collection.read(SYSTEMS, [MAPPED, RAM], AUDIT)


def test_systems_are_found_by_their_maps_or_their_predictions(found):
    table = found.table()
    assert table["system"].tolist() == ["Five grades: EfficientNet-Lite0 (ImageNet, bundled)"] * 3 + [
        "Scored (ours)"
    ]
    assert table["map"].tolist() == ["any lesion", "predicted grade, early", "predicted grade, last", "none"]
    assert table["cells"].tolist() == ["32 x 32", "3 x 3", "3 x 3", ""]
    assert set(found.systems[0].answers.index) == set(found.eyes.index)
    again = collection.read(SYSTEMS, [MODEL], AUDIT)
    assert again.table()["map"].tolist() == ["none"], "maps that were not named are not read"


def test_all_results_of_a_profile_are_found(finished):
    assert collection.profiles(SYSTEMS) == ["smoke"]
    assert len(collection.of_profile(SYSTEMS, "smoke").systems) == 2


def test_a_system_may_name_its_test_eyes_by_another_parameter(finished):
    """One that learnt from other photographs is looked at on the eyes that it was tested on, as notebook 20 compares it."""
    run = records.start(Ram(audit="results/smoke/none", model=AUDIT))
    both = common.eyes(dataset.load(finished).part("test"))
    common.write(common.frame(both, both["grade"].to_numpy(float)), run.path(common.FILE))
    run.finish()
    elsewhere = dataclasses.replace(SCORED, eyes="MODEL")
    assert len(collection.read((NETWORKS, SCORED), [MAPPED, RAM], AUDIT).systems) == 1
    assert len(collection.read((NETWORKS, elsewhere), [MAPPED, RAM], AUDIT).systems) == 2


def test_systems_of_other_eyes_are_left_out_and_none_at_all_is_an_error(finished, own_folders):
    other = audit(own_folders / "others")
    split = other.folder / "split.csv"
    split.write_text(split.read_text().replace(",0,", ",1,"))
    with pytest.raises(records.RecordError, match="not what its run wrote"):
        collection.read(SYSTEMS, [MODEL], AUDIT)
    records.start(FineTuning(variant="vgg16-seed0")).finish()
    with pytest.raises(records.RecordError):
        collection.read((SCORED,), ["results/smoke/03_fine_tuning/vgg16-seed0"], AUDIT)


def test_the_cut_is_fixed_on_validation_eyes_and_told(found):
    seen = found.systems[0]
    name = eyes.choose(found, seen)[0]
    fixed = eyes.view(found, name, seen)
    assert 0.9 < fixed.cut <= 3
    assert fixed.cut_words == "fixed on validation eyes"
    half = eyes.view(found, name, seen, "predicted grade, last")
    assert (half.cut, half.cut_words) == (1.0, "50% of this map's maximum (none is fixed on validation)")
    share = eyes.view(found, name, seen, "any lesion", 0.2)
    assert share.cut == pytest.approx(0.6)
    assert share.regions.sum() > fixed.regions.sum()


def test_what_is_costly_is_done_once(found, monkeypatch):
    """Coming back to an eye fits no cut and reads no masks anew, so that a picture takes only its drawing."""
    fitted = []
    own = collection.one.fit_cut
    monkeypatch.setattr(collection.one, "fit_cut", lambda *given: fitted.append(given[3]) or own(*given))
    one = browser.Browser(found, lambda name: found, ["smoke"])
    for _ in one.names():
        one.show()
        one.step(1)
    assert fitted == ["lesion"]
    before = found.masks_of.cache_info()
    for name in one.names():
        one.set(eye=name)
        one.views()
    assert found.masks_of.cache_info().misses == before.misses
    maps = found.systems[0].maps["any lesion"]
    assert maps.found() is maps.found(), "all eyes are measured once"


def test_scores_of_an_eye_by_hand(found):
    """A map on the lesion, and the same upside down: Dice of the region and the mask, energy inside as a share of the field."""
    seen = found.systems[0]
    on, off = (eyes.view(found, name, seen) for name in seen.answers.index[:2])
    assert on.scores["score"].tolist() == [*eyes.REGIONS.values(), "Dice at the cut"]
    values = [view.scores.set_index("score")["this eye"] for view in (on, off)]
    assert values[0]["pointing game"] == 1
    assert values[0]["average precision"] > 0.7 > 0.1 > values[1]["average precision"]
    assert values[1]["Dice at the cut"] == 0
    fov = on.masks["FOV"]
    cover = np.where(fov, on.masks["EX"], 0)
    dice = 2 * cover[on.regions].sum() / (on.regions.sum() + cover.sum())
    assert values[0]["Dice at the cut"] == pytest.approx(dice)
    assert values[0]["energy on the lesion"] == pytest.approx(
        (on.heat * cover).sum() / on.heat[fov].sum(), rel=1e-5
    )
    uniform = on.scores.set_index("score")["uniform map"]
    assert uniform["energy on the lesion"] == pytest.approx(cover.sum() / fov.sum())


def answers(grade, predicted, probability) -> collection.Seen:
    frame = pd.DataFrame({"grade": grade, "predicted": predicted, "probability": probability})
    frame["score"] = frame["probability"].fillna(0.0)
    return collection.Seen("made", frame.set_axis(list("abcd")[: len(frame)]))


def test_right_and_wrong_and_their_order():
    seen = answers([0, 2, 4, np.nan], [0, 1, 0, 3], [0.1, 0.4, 0.2, 0.9])
    assert eyes.right(seen).tolist() == [True, False, False, pd.NA]
    assert eyes.error(seen).round(3).tolist()[:3] == [0.1, 1.599, 4.799]
    assert np.isnan(eyes.error(seen)["d"])
    seen = answers([0, 3], [np.nan] * 2, [0.7, 0.9])
    assert eyes.right(seen).tolist() == [False, True]
    seen = answers([0, 3], [np.nan] * 2, [np.nan] * 2)
    assert eyes.right(seen).isna().all()
    assert eyes.error(seen).notna().all()


def test_eyes_are_chosen_by_grade_outcome_and_lesion(found):
    seen = found.systems[0]
    every = eyes.choose(found, seen)
    assert every == sorted(found.eyes.index)
    by_grade = [name for grade in range(5) for name in eyes.choose(found, seen, grade)]
    assert sorted(by_grade) == every
    right, wrong = (eyes.choose(found, seen, outcome=one) for one in ("right", "wrong"))
    assert sorted([*right, *wrong]) == every
    assert eyes.choose(found, seen, lesion="EX") == every
    assert eyes.choose(found, seen, lesion="HE") == []
    worst = eyes.choose(found, seen, order=eyes.BY_GRADING)
    assert sorted(worst) == every
    off = eyes.error(seen)
    assert all(off[a] >= off[b] for a, b in itertools.pairwise(worst))
    assert eyes.most_lesions(found, every) == found.lesions["EX"].idxmax()
    with pytest.raises(ValueError, match="No test eye fits this choice"):
        eyes.most_lesions(found, [])


def test_counts_and_truth(found):
    counts = eyes.counts(found)
    assert counts["eyes"].sum() == len(found.eyes)
    assert counts["EX"].tolist() == counts["eyes"].tolist()
    assert set(counts) == {"eyes", "EX"}
    truth = eyes.truth(found, found.eyes.index[0])
    assert truth["lesion"].tolist() == ["hard exudate"]
    assert 1 < truth["% of the field of view"].item() < 4


def test_without_maps_or_masks_there_is_still_something_to_see(found):
    name, scored = found.eyes.index[0], found.systems[1]
    view = eyes.view(found, name, scored)
    assert (view.heat, view.map_name, view.probabilities) == (None, "", None)
    assert view.answer.startswith("score ")
    bare = dataclasses.replace(found, masked=False)
    assert bare.lesions.isna().all(axis=None)
    assert eyes.view(bare, name, found.systems[0]).masks == {}
    assert list(eyes.counts(bare)) == ["eyes"]
    for views in ([view], [eyes.view(found, name, found.systems[0]), view]):
        figure = figures.eye(views)
        assert len(figure.axes) == 4 * len(views)
        assert figures.jpeg(figure)[:2] == b"\xff\xd8"


def test_unknown_eyes_and_maps_are_named(found):
    with pytest.raises(KeyError, match="no prediction for 'nobody'"):
        eyes.view(found, "nobody", found.systems[0])
    with pytest.raises(KeyError, match="no map 'other'; it has any lesion, predicted grade, early"):
        eyes.view(found, found.eyes.index[0], found.systems[0], "other")


def test_a_choice_that_no_longer_fits_is_mended(found):
    one = browser.Browser(found, lambda name: found, ["smoke"])
    first = one.choice
    assert (first.system, first.map_name, first.other, first.eye) == (
        0,
        "any lesion",
        -1,
        sorted(found.eyes.index)[0],
    )
    assert one.set(map_name="predicted grade, last").map_name == "predicted grade, last"
    assert one.set(system=1).map_name == "", "the second system has no maps"
    assert one.set(system=0).map_name == "any lesion"
    assert one.set(lesion="HE").eye == ""
    assert one.show()[0] == b""
    assert "No test eye fits" in one.show()[1]
    assert one.set(lesion="").eye == first.eye
    assert one.set(system=99, other=99).system == 0
    with pytest.raises(TypeError):
        one.set(nothing=1)


def test_pages_turn_in_a_circle_worst_first(found):
    one = browser.Browser(found, lambda name: found, ["smoke"])
    one.set(order=eyes.BY_GRADING)
    order = eyes.choose(found, found.systems[0], order=eyes.BY_GRADING)
    one.set(eye=order[0])
    assert [one.step(1).eye for _ in order] == [*order[1:], order[0]]
    assert one.step(-1).eye == order[-1]


def test_another_profile_is_opened_once_it_is_chosen(found):
    opened = []
    one = browser.Browser(
        found, lambda name: opened.append(name) or dataclasses.replace(found, profile=name), ["demo", "smoke"]
    )
    assert one.profiles == ["smoke", "demo"]
    one.set(grade=0)
    assert opened == []
    assert (
        one.set(profile="demo")
        == browser.Browser(dataclasses.replace(found, profile="demo"), None, []).choice
    )
    assert opened == ["demo"]


def test_two_systems_are_shown_with_their_scores(found):
    one = browser.Browser(found, lambda name: found, ["smoke"])
    one.set(other=1)
    picture, text = one.show()
    assert picture[:2] == b"\xff\xd8"
    assert "eye 1 of 4" in text
    assert "average precision" in text
    assert "It has no map of this eye" in text


def worst_maps_first(found, names):
    """By the average precision of an independent library over the share of the field that the lesion takes."""
    maps, fractions = found.systems[0].maps["any lesion"], {}
    for name in names:
        masks = found.masks_of(name)
        fov = np.asarray(masks["FOV"], bool)
        heat = cam.upsample(maps.of(name)[None], SIZE)[0][fov]
        inside = masks["EX"][fov] > 0.5
        fractions[name] = average_precision_score(inside, heat) / inside.mean()
    return sorted(names, key=fractions.get)


def test_worst_maps_come_first(found):
    """Every second map is upside down and so misses its lesion: these come first, as an independent library orders them."""
    seen = found.systems[0]
    order = eyes.choose(found, seen, order=eyes.BY_MAP)
    assert order == worst_maps_first(found, sorted(found.eyes.index))
    upside_down = list(seen.answers.index[1::2])
    assert set(order[: len(upside_down)]) == set(upside_down)
    times = eyes.worst_maps(seen, order)["times a uniform map"]
    assert times.is_monotonic_increasing
    assert times.iloc[0] < 1 < 10 < times.iloc[-1]
    assert eyes.notes(eyes.worst_maps(seen, order[:1]))[order[0]].startswith("0.")
    flat = eyes.choose(found, seen, order=eyes.BY_MAP, map_name="predicted grade, last")
    assert flat == sorted(found.eyes.index), "a map that is the same everywhere has 1 in every eye"
    assert eyes.worst_maps(seen, flat, "predicted grade, last")[
        "times a uniform map"
    ].tolist() == pytest.approx([1.0] * 4)
    assert eyes.choose(found, seen, lesion="HE", order=eyes.BY_MAP) == []


def test_a_map_without_heat_is_the_worst(found):
    seen, names = found.systems[0], sorted(found.eyes.index)
    values = seen.maps["any lesion"].values.copy()
    place = seen.maps["any lesion"].place
    values[place[names[0]]] = 0
    times = collection.found_lesions(values, place, names, "lesion", found.masks_of)
    assert times[names[0]] == 0
    assert (times[names[1:]] > 0).all()
    assert collection.found_lesions(values, place, names, "HE", found.masks_of).isna().all()


def test_without_maps_or_masks_there_is_no_order_by_map(found):
    seen, scored = found.systems
    bare = dataclasses.replace(found, masked=False)
    assert eyes.orders(found, seen) == [eyes.BY_NAME, eyes.BY_GRADING, eyes.BY_MAP]
    for one, which in ((found, scored), (bare, seen)):
        assert eyes.orders(one, which) == [eyes.BY_NAME, eyes.BY_GRADING]
        assert eyes.choose(one, which, order=eyes.BY_MAP) == []
        assert eyes.worst_maps(which, []).empty
    assert len(figures.worst([]).axes) == 4
    with pytest.raises(ValueError, match="no order 'size'; there are name, grading, map"):
        eyes.choose(found, seen, order="size")
    browsing = browser.Browser(found, lambda name: found, ["smoke"])
    browsing.set(order=eyes.BY_MAP)
    assert browsing.orders() == [
        ("by name", "name"),
        ("worst graded first", "grading"),
        ("worst map first", "map"),
    ]
    assert browsing.set(system=1).order == eyes.BY_NAME


def test_worst_eyes_are_drawn_with_what_they_are_the_worst_by(found):
    seen = found.systems[0]
    order = eyes.choose(found, seen, order=eyes.BY_MAP)
    drawn = figures.worst(
        [eyes.view(found, name, seen) for name in order], eyes.notes(eyes.worst_maps(seen, order))
    )
    titles = [axis.get_title() for axis in drawn.axes]
    assert [title.split(":")[0] for title in titles] == order
    assert all(title.endswith("times a uniform map") for title in titles)


def test_menus_set_the_choice_and_show_it(found):
    one = browser.Browser(found, lambda name: found, ["smoke"])
    whole = menus.build(one)
    found_menus = {widget.description: widget for widget in _all(whole)}
    before = _picture(whole).value
    assert before[:2] == b"\xff\xd8"
    found_menus["beside"].value = 1
    assert one.choice.other == 1
    assert _picture(whole).value != before
    found_menus["next eye"].click()
    assert one.choice.eye == one.names()[1] == found_menus["eye"].value
    found_menus["graded"].value = "right"
    assert set(found_menus["eye"].options) == set(one.names())
    found_menus["cut"].value = 0.5
    assert one.choice.cut == 0.5
    found_menus["with"].value = "EX"
    found_menus["order"].value = eyes.BY_GRADING
    assert (one.choice.lesion, one.choice.order) == ("EX", eyes.BY_GRADING)
    found_menus["order"].value = eyes.BY_MAP
    assert list(found_menus["eye"].options) == one.names() == worst_maps_first(found, one.names())
    found_menus["eye"].value = one.names()[0]
    found_menus["previous eye"].click()
    assert found_menus["eye"].value == one.choice.eye == one.names()[-1], "pages turn in a circle"
    found_menus["system"].value = 1
    assert found_menus["order"].value == one.choice.order == eyes.BY_NAME, "the second system has no maps"
    assert [name for _, name in found_menus["order"].options] == [eyes.BY_NAME, eyes.BY_GRADING]


def _all(widget):
    for child in getattr(widget, "children", ()):
        yield from _all(child)
    if hasattr(widget, "description"):
        yield widget


def _picture(widget):
    return widget.children[1]


def test_menus_are_shown_where_there_is_a_front_end(monkeypatch):
    for name in (*menus.FRONT_ENDS, records.RUN_ID):
        monkeypatch.delenv(name, raising=False)
    assert [menus.wanted(asked) for asked in ("auto", "on", "off")] == [False, True, False]
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/23_explorer.ipynb")
    assert menus.wanted("auto")
    monkeypatch.setenv(records.RUN_ID, "a stage that was started from there")
    assert not menus.wanted("auto")


def test_the_library_works_without_ipywidgets(found, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    one = browser.Browser(found, lambda name: found, ["smoke"])
    assert one.show()[0]
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        menus.build(one)


@pytest.mark.parametrize("profile", ["smoke", "demo", "eyepacs_mini", "dr600_mini", "real_mini", "paper"])
def test_every_profile_that_fine_tunes_networks_has_the_explorer(profile):
    stages = {stage.notebook: stage for stage in plan.plan(profile, "all")}
    found = stages[params.Explorer.notebook]
    assert f"results/{profile}/01_data_audit" in found.needs
    assert any("/03_fine_tuning/" in folder for folder in found.parameters().results)
    assert set(found.parameters().results) <= set(found.needs)
    assert not [folder for folder in found.needs if folder.endswith("-frozen_bn")], "ablations are no systems"


@pytest.mark.parametrize("profile", ["idrid_mini", "odir_mini", "demo_fresh"])
def test_other_profiles_have_none(profile):
    assert params.Explorer.notebook not in {stage.notebook for stage in plan.plan(profile, "all")}


def test_what_the_parameters_choose_is_where_the_menus_start(found):
    name = found.eyes.index[0]
    start = browser.start(params.Explorer(other=1, grade=2, cut=0.3), found, name)
    assert (start.system, start.other, start.grade, start.cut, start.eye) == (0, 1, 2, 0.3, name)
    assert browser.start(params.Explorer(other=0), found, name).other == browser.NO_OTHER
