"""Frames of a clip: reach, repetition, order, and nothing but the generator decides."""

import numpy as np
import pytest

from msr_d2.data.video import sample_frames


def draw(length, num_frames, frame_range, shuffle=False, seed=0, **more):
    return sample_frames(
        length, num_frames, frame_range, shuffle, np.random.default_rng(seed), **more
    )


def draws(count, *arguments, **more):
    return [draw(*arguments, seed=seed, **more) for seed in range(count)]


def test_same_generator_same_frames():
    assert draw(50, 5, 10, seed=3) == draw(50, 5, 10, seed=3)
    np.random.seed(0)
    first = draw(50, 5, 10, True, seed=3)
    np.random.seed(1)
    assert draw(50, 5, 10, True, seed=3) == first
    assert len({tuple(x) for x in draws(50, 50, 5, 10)}) > 40


def test_frames_stay_in_the_video_and_within_twice_the_range():
    for frames in draws(200, 30, 4, 3):
        assert frames == sorted(frames) and all(type(x) is int for x in frames)
        assert frames[0] >= 0 and frames[-1] < 30 and frames[-1] - frames[0] <= 6


def test_every_frame_is_as_likely_to_be_the_reference():
    counts = np.bincount([draw(5, 1, 2, seed=seed)[0] for seed in range(2000)], minlength=5)
    assert counts.min() > 320 and counts.max() < 480  # 400 expected, standard deviation 18


def test_the_reference_frame_is_not_drawn_again():
    assert all(sorted(x) == [0, 1] for x in draws(50, 2, 2, 5))
    # Three frames of a video of two: the other frame twice.
    assert {tuple(x) for x in draws(50, 2, 3, 5)} == {(0, 0, 1), (0, 1, 1)}


def test_with_replacement_frames_may_repeat():
    assert any(len(set(x)) < 5 for x in draws(50, 11, 5, 5))


def test_without_replacement_they_do_not():
    assert all(len(set(x)) == 5 for x in draws(100, 11, 5, 5, replace=False))


def test_without_replacement_a_short_window_is_used_up_first():
    for frames in draws(50, 3, 7, 5, replace=False):
        assert sorted(np.bincount(frames, minlength=3)) == [2, 2, 3]


@pytest.mark.parametrize("replace", [True, False])
def test_a_video_of_one_frame_repeats_it(replace):
    assert draw(1, 4, 5, replace=replace) == [0, 0, 0, 0]
    assert draw(9, 3, 0, seed=1, replace=replace) == [draw(9, 1, 0, seed=1)[0]] * 3


def test_shuffling_changes_the_order_only():
    assert any(x != sorted(x) for x in draws(20, 40, 4, 10, shuffle=True))
    assert {tuple(sorted(x)) for x in draws(20, 40, 4, 10, shuffle=True)} == {
        tuple(x) for x in draws(20, 40, 4, 10)
    }


@pytest.mark.parametrize("arguments", [(0, 2, 5), (5, 0, 5), (5, 2, -1)])
def test_impossible_wishes(arguments):
    with pytest.raises(ValueError, match="INPUT.SAMPLING_FRAME_NUM"):
        draw(*arguments)
