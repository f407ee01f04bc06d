"""One number per map, region and metric: against the bootstrap of means, and against pairs by hand."""

import numpy as np
import pandas as pd
import pytest

from drstudy.evaluation import statistics
from drstudy.explain.measures import aggregate, scores

EYES, RESAMPLES = 30, 200
IDS = [f"e{k}" for k in range(EYES)]
PATIENTS = {name: f"p{k // 2}" for k, name in enumerate(IDS)}


def tables(seed=0):
    random = np.random.default_rng(seed)
    rows, single = [], []
    for name in IDS:
        for layer, better in (("ours", 0.2), ("base", 0.0), ("third", 0.1)):
            for region in ("HE", "EX"):
                rows.append(
                    {"image_id": name, "map": layer, "region": region, "heat": random.random() + better}
                    | {"hit": np.nan if layer == "base" and name == "e3" else random.random()}
                )
    for name in IDS[:24]:
        sizes = random.choice(list(scores.SIZES)[:2], random.integers(0, 4))
        for layer in ("ours", "base", "third"):
            single += [
                {"image_id": name, "map": layer, "region": "HE", "lesion": k, "size": size}
                | {"diameter_dd": 0.1, "found": float(random.random() < 0.5)}
                for k, size in enumerate(sizes)
            ]
    return pd.DataFrame(rows), pd.DataFrame(single)


@pytest.fixture(scope="module")
def summary():
    eyes, lesions = tables()
    found = aggregate.aggregate(
        eyes, lesions, PATIENTS, RESAMPLES, seed=1, against="base", metrics=("heat", "hit")
    )
    return eyes, lesions, found.set_index(["map", "region", "metric"])


def test_values_have_the_interval_of_their_mean(summary):
    eyes, _, found = summary
    for (name, region), part in eyes.groupby(["map", "region"]):
        patient = part["image_id"].map(PATIENTS)
        expected = statistics.mean_interval(part["heat"], patient, RESAMPLES, 1)
        row = found.loc[(name, region, "heat")]
        for column, key in (("value", "value"), ("value_lo", "lo"), ("value_hi", "hi")):
            assert row[column] == pytest.approx(expected[key], rel=1e-12)
        assert (row["units"], row["patients"]) == (EYES, EYES // 2)


def test_differences_are_paired_eye_by_eye(summary):
    eyes, _, found = summary
    wide = eyes.pivot(index="image_id", columns=["map", "region"], values="hit")
    gap = (wide["ours"]["HE"] - wide["base"]["HE"]).dropna()
    row = found.loc[("ours", "HE", "hit")]
    assert (row["shared_units"], row["units"]) == (EYES - 1, EYES)
    assert row["difference"] == pytest.approx(gap.mean(), rel=1e-12)
    assert row["other"] == pytest.approx(wide["base"]["HE"].mean(), rel=1e-12)
    both = statistics.paired(
        wide["ours"][["HE"]].to_numpy(),
        wide["base"][["HE"]].to_numpy(),
        wide.index.map(PATIENTS).to_numpy(str),
        RESAMPLES,
        1,
    )
    assert row["difference_lo"] == pytest.approx(both["difference_lo"][0], rel=1e-12)
    assert row["difference_hi"] == pytest.approx(both["difference_hi"][0], rel=1e-12)
    own = found.loc["base"]
    assert own[["difference", "difference_lo", "other"]].isna().all(axis=None)
    assert (own["shared_units"] == 0).all()


def test_recall_is_a_mean_over_lesions_and_drawn_by_patient(summary):
    _, lesions, found = summary
    for metric, size in aggregate.RECALLS.items():
        part = lesions[(lesions["map"] == "ours") & ((lesions["size"] == size) | (size == ""))]
        if part.empty:
            assert ("ours", "HE", metric) not in found.index
            continue
        row = found.loc[("ours", "HE", metric)]
        assert (row["value"], row["units"]) == (pytest.approx(part["found"].mean()), len(part))
        assert row["patients"] == part["image_id"].map(PATIENTS).nunique()
    whole = lesions[lesions["map"] == "ours"]
    expected = statistics.mean_interval(whole["found"], whole["image_id"].map(PATIENTS), RESAMPLES, 1)
    row = found.loc[("ours", "HE", "recall")]
    assert (row["value_lo"], row["value_hi"]) == pytest.approx((expected["lo"], expected["hi"]), rel=1e-12)


def test_rows_stand_by_region_then_map_then_metric(summary):
    keys = list(summary[2].index)
    assert [key for key in keys if key[2] == "heat"] == [
        (name, region, "heat") for region in ("HE", "EX") for name in ("ours", "base", "third")
    ]
    assert keys[:4] == [("ours", "HE", name) for name in ("heat", "hit", "recall", "recall_small")]


def test_without_a_map_to_compare_with_there_are_values_only():
    eyes, _ = tables()
    found = aggregate.aggregate(eyes, pd.DataFrame(), PATIENTS, 20, 0, metrics=("heat",))
    assert list(found) == ["map", "region", "metric", *aggregate.NUMBERS]
    assert len(found) == 6


def test_few_patients_get_no_interval_and_errors_are_named():
    eyes, lesions = tables()
    few = aggregate.aggregate(
        eyes[eyes["image_id"].isin(IDS[:8])], lesions[:0], PATIENTS, 20, 0, metrics=["heat"]
    )
    assert (few["patients"] == 4).all()
    assert few["value_lo"].isna().all()
    assert few["value"].notna().all()
    with pytest.raises(ValueError, match="no map 'best'"):
        aggregate.aggregate(eyes, lesions, PATIENTS, 20, 0, against="best", metrics=["heat"])
    with pytest.raises(ValueError, match="30 eyes have no patient_id"):
        aggregate.aggregate(eyes, lesions, {}, 20, 0, metrics=["heat"])
    empty = aggregate.aggregate(eyes.assign(heat=np.nan), lesions[:0], PATIENTS, 20, 0, metrics=["heat"])
    assert empty.empty
