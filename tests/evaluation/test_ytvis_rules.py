"""All twelve numbers, bit for bit, against the rules written down as plain loops."""

import numpy as np
import pytest
from toy_coco import rectangle
from toy_ytvis import (
    ELSEWHERE,
    SQUARE,
    annotation,
    ground_truth,
    random_videos,
    result,
    small_videos,
)
from ytvis_rules import official_numbers

from msr_d2.evaluation.ytvis_eval import evaluate_ytvis

# The official precision of 1 right of 1 is 1 / (1 + 2.2e-16).
FULL = pytest.approx(100, rel=1e-14)
NAMES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def numbers(gt, results, **kwargs):
    return list(evaluate_ytvis(gt, results, "segm", **kwargs).values())[:12]


def in_percent(values):
    return [x * 100 if x >= 0 else np.nan for x in values]


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_rules_on_small_videos(seed):
    gt, results = small_videos(seed)
    np.testing.assert_array_equal(numbers(gt, results), in_percent(official_numbers(gt, results)))


def test_the_small_videos_are_neither_trivial_nor_alike():
    cases = [small_videos(seed) for seed in range(40)]
    evaluated = np.array([numbers(*case) for case in cases])
    # Each number is defined, and neither 0 nor 100, in many cases; all are different ones.
    assert ((evaluated > 0) & (evaluated < 100)).sum(axis=0).min() >= 8
    assert len(np.unique(evaluated[:, 0])) > 30
    assert all(np.isnan(evaluate_ytvis(*case, "segm")["AP-class 7"]) for case in cases)


@pytest.mark.parametrize("seed", (6, 7))
def test_equals_the_rules_on_objects_of_all_sizes(seed):
    gt, results = random_videos(seed, num_videos=5)
    expected = official_numbers(gt, results)
    assert min(expected) > 0
    np.testing.assert_array_equal(numbers(gt, results), in_percent(expected))


@pytest.mark.parametrize("limit", [2, 3, 12])
def test_equals_the_rules_under_another_limit(limit):
    gt, results = small_videos(3)
    max_dets = sorted((1, 10, limit))
    expected = in_percent(official_numbers(gt, results, max_dets))
    np.testing.assert_array_equal(numbers(gt, results, max_dets_per_video=limit), expected)


def by_hand(gt, results):
    """Both implementations must agree, so that a hand-computed value tests both."""
    evaluated = numbers(gt, results)
    np.testing.assert_array_equal(evaluated, in_percent(official_numbers(gt, results)))
    return dict(zip(NAMES, evaluated))


def test_the_three_limits():
    """Twelve objects side by side, all found: as many count as may."""
    columns = [rectangle(x, 0, x + 1, 20) for x in range(12)]
    gt = ground_truth([annotation([m, m]) for m in columns])
    found = [result([m, m], 0.5 + i / 100) for i, m in enumerate(columns)]
    evaluated = by_hand(gt, found)
    assert evaluated["AR1"] == pytest.approx(100 / 12)
    assert evaluated["AR10"] == pytest.approx(1000 / 12)
    assert evaluated["AR100"] == evaluated["ARs"] == 100 and evaluated["AP"] == FULL


def test_recall_points():
    """Hit, miss, hit of two objects: precision 1 up to recall 0.5, then 2/3: 51 and 50 points."""
    gt = ground_truth([annotation([SQUARE]), annotation([ELSEWHERE])], lengths=(1,))
    nowhere = rectangle(10, 0, 20, 5)
    found = [result([m], s) for m, s in ((SQUARE, 0.9), (nowhere, 0.8), (ELSEWHERE, 0.7))]
    assert by_hand(gt, found)["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_thresholds_are_reached_with_equality():
    """IoU = 3/4, and exactly 1/2: at thresholds .5 ... .75, and at .5 only."""
    gt = ground_truth([annotation([rectangle(0, 0, 4, 1)])], lengths=(1,))
    assert by_hand(gt, [result([rectangle(0, 0, 3, 1)], 0.9)])["AP"] == pytest.approx(60)
    half = by_hand(gt, [result([rectangle(0, 0, 2, 1)], 0.9)])
    assert (half["AP"], half["AP50"], half["AP75"]) == (pytest.approx(10), pytest.approx(100), 0)


def test_an_object_is_found_once():
    """The second detection of the same object is wrong, although it is exact; the first is not."""
    gt = ground_truth([annotation([SQUARE]), annotation([ELSEWHERE])], lengths=(1,))
    found = [result([SQUARE], 0.9), result([SQUARE], 0.8), result([ELSEWHERE], 0.7)]
    assert by_hand(gt, found)["AP50"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_a_crowd_takes_any_number_of_detections():
    """As in COCO, and other than objects; its IoU is the usual one."""
    crowd = annotation([SQUARE], iscrowd=1)
    gt = ground_truth([crowd, annotation([ELSEWHERE])], lengths=(1,))
    found = [result([SQUARE], 0.9), result([SQUARE], 0.8), result([ELSEWHERE], 0.7)]
    assert by_hand(gt, found)["AP"] == FULL


def test_an_object_that_counts_goes_before_a_crowd_that_fits_better():
    crowd = annotation([SQUARE], iscrowd=1)
    gt = ground_truth([crowd, annotation([rectangle(0, 0, 10, 9)])], lengths=(1,))
    assert by_hand(gt, [result([SQUARE], 0.9)])["AP50"] == FULL


def test_sizes_decide_who_counts():
    """A medium object and a small one: each range sees its own, and only what is found there."""
    annotations = [annotation([SQUARE], areas=[2e4]), annotation([ELSEWHERE], areas=[64])]
    gt = ground_truth(annotations, lengths=(1,))
    evaluated = by_hand(gt, [result([SQUARE], 0.9)])
    assert (evaluated["APm"], evaluated["APs"], evaluated["ARm"]) == (FULL, 0, 100)
    assert np.isnan(evaluated["APl"]) and np.isnan(evaluated["ARl"])
    # The miss is itself small, so it is none among the medium ones.
    miss = result([rectangle(10, 0, 20, 5)], 0.95)
    evaluated = by_hand(gt, [miss, result([SQUARE], 0.9), result([ELSEWHERE], 0.8)])
    assert evaluated["APm"] == FULL and evaluated["APs"] == pytest.approx(50)


def test_range_ends_belong_to_both_ranges():
    gt = ground_truth([annotation([SQUARE], areas=[128**2])], lengths=(1,))
    evaluated = by_hand(gt, [result([SQUARE], 0.9)])
    assert evaluated["APs"] == evaluated["APm"] == FULL and np.isnan(evaluated["APl"])


def test_tracks_that_are_never_seen():
    """An object without a pixel cannot be found; a detection without one is a miss."""
    gt = ground_truth([annotation([None, None]), annotation([SQUARE, None])])
    evaluated = by_hand(gt, [result([None, None], 0.9), result([SQUARE, None], 0.8)])
    # One of two found, at precision 1/2: at 51 of 101 recall points.
    assert evaluated["AP"] == pytest.approx(100 * 51 / 101 / 2)


def test_equal_scores_of_two_videos_follow_the_order_of_the_videos():
    gt = ground_truth([annotation([SQUARE], 2)], lengths=(1, 1))
    found = [result([SQUARE], 0.5, 2), result([SQUARE], 0.5, 1)]
    for results in (found, found[::-1]):
        assert by_hand(gt, results)["AP"] == pytest.approx(50)
