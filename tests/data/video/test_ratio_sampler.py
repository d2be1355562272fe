"""Proportions, completeness, and one stream over all processes."""

import itertools
from collections import Counter

import pytest
from detectron2.utils import comm

from msr_d2.data.video import RatioSampler

GROUPS = [list(range(100)), [100, 101, 102]]


def take(count, ratios, seed=0, groups=GROUPS):
    return list(itertools.islice(RatioSampler(groups, ratios, seed), count))


@pytest.mark.parametrize("ratios", [(1.0, 0.75), (1, 1), (1, 9), (3, 0)])
def test_shares(ratios):
    drawn = take(8000, ratios)
    share = sum(i < 100 for i in drawn) / len(drawn)
    # Three standard deviations of 8000 draws are at most 0.017.
    assert share == pytest.approx(ratios[0] / sum(ratios), abs=0.018)


def test_every_set_is_gone_through_before_it_repeats():
    drawn = take(3000, (1, 1))
    for group in GROUPS:
        own = [i for i in drawn if i in group]
        for start in range(0, len(own) - len(group), len(group)):
            assert sorted(own[start : start + len(group)]) == group


def test_seeds():
    assert take(200, (1, 1), 3) == take(200, (1, 1), 3) != take(200, (1, 1), 4)


def test_processes_share_the_stream(monkeypatch):
    alone = take(30, (1, 1))
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        assert take(10, (1, 1)) == alone[rank::3]


def test_the_mixture_does_not_follow_the_position():
    """No process and no place in a batch sees one data set only."""
    drawn = take(4000, (1, 1))
    for step in (2, 4, 8):
        counts = [Counter(i < 100 for i in drawn[k::step]) for k in range(step)]
        assert all(c[True] / sum(c.values()) == pytest.approx(0.5, abs=0.08) for c in counts)


@pytest.mark.parametrize("ratios", [(1,), (1, -1), (0, 0), (1, 2, 3)])
def test_bad_ratios(ratios):
    with pytest.raises(ValueError, match="DATASETS.DATASET_RATIO is"):
        RatioSampler(GROUPS, ratios, 0)


def test_a_set_that_is_wanted_but_empty():
    with pytest.raises(ValueError, match=r"2 data sets of \[100, 0\] items"):
        RatioSampler([GROUPS[0], []], (1, 1), 0)
    assert len(take(10, (1, 0), groups=[GROUPS[0], []])) == 10
