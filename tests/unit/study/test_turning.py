"""What would change a verdict: the sentences are solved from the rule, so the rule must agree with each of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from drstudy.study import claims, turning
from drstudy.study.claims import DIRECTION, INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Evidence, Found

RULE = {"tolerance": 0.02, "widest": 0.1, "why": "because"}


def claim(*evidence: dict, **more) -> claims.Claim:
    about = {"id": "x", "paper": "P", "place": "Table 1", "says": "s", "maps_to": "m", "needs": "a scanner"}
    items = [Evidence(notebook="04", **{"table": "scores", **item}) for item in evidence]
    numbers = RULE if any("printed" in item for item in evidence) else {}
    return claims.Claim(**about, own_networks=False, **numbers | more, evidence=items)


def texts(one: claims.Claim, *found: Found) -> list[str]:
    return turning.change(one, found)


def test_the_limit_that_decides_a_direction_is_named_with_its_threshold():
    up = claim({"sign": 1})
    assert texts(up, Found(0.03, 0.01, 0.05, paper_setting=True)) == [
        "If the lower limit (now 0.01) were at most 0, the verdict would be “inconclusive”.",
        "If the upper limit (now 0.05) were below 0, the verdict would be “not reproduced”.",
    ]
    assert texts(up, Found(0.03, -0.01, 0.05, paper_setting=True)) == [
        "If the lower limit (now -0.01) were above 0, the verdict would be “reproduced”.",
        "If the upper limit (now 0.05) were below 0, the verdict would be “not reproduced”.",
    ]
    down = claim({"sign": -1})
    assert texts(down, Found(-0.03, -0.05, -0.01, paper_setting=True))[0] == (
        "If the upper limit (now -0.01) were at least 0, the verdict would be “inconclusive”."
    )


def test_on_other_data_the_same_interval_could_only_confirm_the_direction():
    own = {"own_data": {"source": "eyepacs", "images": 35126}}
    found = Found(0.03, -0.01, 0.05)
    assert f"“{DIRECTION}”" in texts(claim({"sign": 1}), found)[0]
    confirmed = texts(claim({"sign": 1}, **own), Found(0.03, 0.01, 0.05))
    assert confirmed[-1] == (
        "The same interval on the paper's own photographs (35,126 of eyepacs), with networks from ImageNet weights: reproduced."
    )
    assert "which this study cannot have" in texts(claim({"sign": 1}), Found(0.03, 0.01, 0.05))[-1]


def test_a_printed_number_is_compared_with_its_tolerance_and_its_width():
    number = claim({"printed": 0.77})
    assert texts(number, Found(0.6, 0.55, 0.65, paper_setting=True)) == [
        "If the upper limit (now 0.65) were at least 0.75, the verdict would be “inconclusive”."
    ], "then it would be 0.2 wide"
    assert texts(number, Found(0.7, 0.68, 0.72, paper_setting=True)) == [
        "If the upper limit (now 0.72) were at least 0.75, the verdict would be “reproduced”."
    ]
    wide = texts(number, Found(0.78, 0.7, 0.86, paper_setting=True))
    assert (
        "If the width of the interval (now 0.16) were at most 0.1, the verdict would be “reproduced”." in wide
    )
    assert texts(number, Found(0.78, paper_setting=True)) == [
        "If the value (now 0.78) were above 0.79 or below 0.75, the verdict would be “not reproduced”."
    ]


def test_numbers_have_the_digits_that_tell_them_from_their_threshold():
    near = claim({"printed": 22}, tolerance=1, widest=2)
    assert texts(near, Found(21.0451, paper_setting=True)) == [
        "If the value (now 21.05) were below 21 or above 23, the verdict would be “not reproduced”."
    ]
    assert "e-" not in texts(claim({"sign": 1}), Found(4e-7, -1e-7, 5e-7))[0]
    assert "-1 × 10⁻⁷" in texts(claim({"sign": 1}), Found(4e-7, -1e-7, 5e-7))[0]


def test_the_worst_of_several_numbers_is_the_one_to_change():
    two = claim({"sign": 1, "where": {"metric": "qwk"}}, {"sign": 1, "where": {"metric": "auc_ge2"}})
    head, deciding = texts(two, Found(0.2, 0.1, 0.3), Found(0.2, -0.1, 0.3))
    assert (
        head
        == "1 of 2 numbers gives this verdict, and the worst one counts. It would have to change for a better verdict."
    )
    assert deciding.startswith("AUC, grade ≥ 2: If the lower limit (now -0.1) were above 0")
    head, *both = texts(two, Found(0.2, -0.1, 0.3), Found(0.2, -0.1, 0.3))
    assert head.startswith("Both numbers give this verdict")
    assert [text.partition(":")[0] for text in both] == ["QWK", "AUC, grade ≥ 2"]


def test_what_cannot_be_tested_has_its_rule_and_no_invented_threshold():
    lacking = texts(claim({"sign": 1}), Found(lacking="VGG16 was not trained"))
    assert lacking == [
        "The missing parts that the reason names are needed first. Then the rule decides.",
        "Reproduced if the whole 95 % interval is above 0, not reproduced if the whole interval is below 0, inconclusive if the interval contains 0.",
    ]
    assert texts(claim()) == [
        "The missing parts that the reason names are needed first. Then a rule can be written."
    ]
    assert texts(claim({"sign": 1}), Found(0.5, 0.5, 0.5)) == [
        "An interval is needed: more patients, or at least 3 training seeds where patients give none."
    ]
    assert texts(claim({"sign": 1}), Found()) == ["Photographs on which the number is defined are needed."]


INTERVALS = [
    (-0.3, -0.1),
    (-0.1, 0.2),
    (0.1, 0.3),
    (0.0, 0.2),
    (0.70, 0.72),
    (0.7, 0.9),
    (0.76, 0.78),
    (0.9, 1.2),
]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "evidence", [{"sign": 1}, {"sign": -1}, {"printed": 0.77}, {"printed": 0.77, "sign": 1}]
)
def test_the_rule_itself_gives_the_verdict_that_a_sentence_names(evidence, inside):
    """Just past a threshold the verdict is the named one, just before it the old one."""
    one = claim(evidence)
    number = one.evidence[0]
    seen = set()
    for (lo, hi), step in product(INTERVALS, (1e-6, 1e-3)):
        found = Found((lo + hi) / 2, lo, hi, paper_setting=inside)
        before = claims.judge(one, [found])[0]
        for turn in turning.turns(one, number, found):
            sign = 1 if turn.direction == "above" else -1
            past, short_of = turn.threshold + sign * step, turn.threshold - sign * step
            assert claims.judge(one, [at(found, turn.what, past)])[0] == turn.verdict != before
            if turn.what != "width" and (turn.now - turn.threshold) * sign < -step:
                moved = at(found, turn.what, short_of)
                assert turn.verdict != claims.judge(one, [moved])[0]
            seen.add((before, turn.verdict))
    assert len(seen) >= 3


def at(found: Found, what: str, to: float) -> Found:
    """The number with one limit at a place; the other one goes along where it must. A width shrinks towards the printed 0.77."""
    lo, hi = found.lo, found.hi
    if what == "width":
        centre = float(np.clip(0.77, lo, hi))
        lo, hi = (
            centre - (centre - lo) * to / (found.hi - found.lo),
            centre + (hi - centre) * to / (found.hi - found.lo),
        )
    elif what == "lower limit":
        lo, hi = to, max(hi, to + 1e-9)
    else:
        lo, hi = min(lo, to - 1e-9), to
    return Found((lo + hi) / 2, lo, hi, paper_setting=found.paper_setting)


def test_every_claim_of_every_paper_has_a_rule_and_a_sentence():
    for one in claims.read():
        found = [Found(0.1, -0.2, 0.4)] * len(one.evidence)
        assert all(turning.change(one, found)), one.id
        for part in turning.parts(one, found):
            assert part.verdict in {REPRODUCED, DIRECTION, INCONCLUSIVE, NOT_REPRODUCED}
            assert part.rule.startswith("Reproduced if")
            assert part.about
            assert "_ge" not in part.about


def test_a_strip_has_room_for_the_number_and_its_threshold():
    (part,) = turning.parts(claim({"printed": 0.77}), [Found(0.6, 0.55, 0.65)])
    places = part.bounds.places
    assert places["lo"] == 8
    assert places["high"] == 92
    assert places["lo"] < places["value"] < places["hi"] < places["low"] < places["high"]
    flat = turning.Bounds(0.0, 0.0, 0.0, 0.0, 0.0).places
    assert set(flat.values()) == {8.0}
