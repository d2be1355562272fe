import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from msr_d2.mask_free_vis.windows import (
    TrackStitcher,
    Window,
    associate,
    association_scores,
    tube_iou,
)

HEIGHT, WIDTH = 20, 30
# Three queries that have nothing in common.
RED, GREEN, BLUE = torch.eye(3)


def square(left, top=5, side=6):
    """Run lengths of a square; None for `left` None."""
    if left is None:
        return None
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[top : top + side, left : left + side] = 1
    rle = mask_util.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def track(lefts, top=5):
    return [square(left, top) for left in lefts]


def stitch(*windows, min_score=0.3, top_k=10):
    stitcher = TrackStitcher(min_score)
    for window in windows:
        stitcher.add(window)
    return stitcher.result(top_k)


def probabilities(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_tube_iou_by_hand():
    old = [track([0, 0]), track([None, 3]), track([None, None])]
    new = [track([0, 3]), track([20, None])]
    # squares of 36 pixels, 18 of them shared when 3 columns apart
    expected = [
        [(36 + 18) / (36 + 18), 0],
        [(0 + 36) / (36 + 36), 0],
        [0, 0],
    ]
    expected[0][0] = (36 + 18) / (36 + (72 - 18))
    np.testing.assert_allclose(tube_iou(old, new), expected, atol=1e-12)


def test_tube_iou_without_shared_frames():
    np.testing.assert_array_equal(tube_iou([[], []], [[]]), np.zeros((2, 1)))


def test_scores_need_one_place_or_absence_in_both():
    old = [track([0]), track([None])]
    new = [track([0]), track([20]), track([None])]
    scores = association_scores(
        old, new, torch.stack([RED, RED]), torch.stack([GREEN, RED, 2 * RED])
    )
    # same place, other look; other place, same look; one of them not seen
    # one of them not seen, twice; both not seen and same look
    np.testing.assert_allclose(scores, [[0.5, 0, 0], [0, 0, 0.5]], atol=1e-6)


def test_opposite_queries_count_as_unlike():
    scores = association_scores([track([0])], [track([0])], RED[None], -RED[None])
    np.testing.assert_allclose(scores, [[0.5]])


def test_associate_maximises_the_total_above_the_gate():
    # greedy would take 0.9 and leave 0.2, which the gate refuses
    assert associate(np.array([[0.9, 0.8], [0.8, 0.2]]), 0.3) == [(0, 1), (1, 0)]
    assert associate(np.array([[0.9, 0.2], [0.25, 0.29]]), 0.3) == [(0, 0)]
    assert associate(np.zeros((2, 3)), 0.0) == []
    assert associate(np.zeros((0, 3)), 0.0) == []


def test_single_window_is_unchanged():
    masks = [track([0, 1, None]), track([None, 20, 21])]
    result = stitch(
        Window(0, probabilities([0.1, 0.7], [0.9, 0.05]), torch.stack([RED, GREEN]), masks),
        top_k=3,
    )
    torch.testing.assert_close(result["scores"], torch.tensor([0.9, 0.7, 0.1]))
    assert result["labels"].tolist() == [0, 1, 0]
    assert result["masks"] == [masks[1], masks[0], masks[0]]


def test_moving_object_is_one_track():
    result = stitch(
        Window(0, probabilities([0.8, 0.1]), RED[None], [track([0, 1, 2, 3])]),
        Window(2, probabilities([0.6, 0.3]), RED[None], [track([2, 3, 4, 5])]),
        top_k=1,
    )
    assert result["masks"] == [track([0, 1, 2, 3, 4, 5])]
    assert result["scores"].item() == pytest.approx(0.7)


def test_scores_are_weighted_by_the_frames_in_which_a_piece_is_seen():
    result = stitch(
        Window(0, probabilities([0.9, 0.0]), RED[None], [track([None, None, None, 3])]),
        Window(2, probabilities([0.5, 0.4]), RED[None], [track([None, 3, 4, 5])]),
        top_k=2,
    )
    assert result["labels"].tolist() == [0, 1]
    expected = torch.tensor([(1 * 0.9 + 3 * 0.5) / 4, 3 * 0.4 / 4])
    torch.testing.assert_close(result["scores"], expected)


def test_shared_frames_are_halved_between_the_windows():
    result = stitch(
        Window(0, probabilities([1.0]), RED[None], [track([0] * 5)]),
        Window(1, probabilities([1.0]), RED[None], [track([1] * 5)]),
    )
    assert result["masks"] == [track([0, 0, 0, 1, 1, 1])]


def test_object_that_leaves_and_returns():
    result = stitch(
        Window(0, probabilities([0.8]), RED[None], [track([20, 24, None, None])]),
        Window(2, probabilities([0.8]), RED[None], [track([None, None, None, 24])]),
    )
    assert result["masks"] == [track([20, 24, None, None, None, 24])]


def test_object_that_is_away_for_a_whole_window():
    result = stitch(
        Window(0, probabilities([0.8]), RED[None], [track([20, None, None])]),
        Window(1, probabilities([0.7]), GREEN[None], [track([None, 5, 5])]),
        Window(2, probabilities([0.8], [0.7]), torch.stack([RED, GREEN]),
               [track([None, None, 22]), track([5, 5, 5])]),
    )  # fmt: skip
    assert result["masks"] == [
        track([20, None, None, None, 22]),
        track([None, None, 5, 5, 5]),
    ]


def test_another_object_that_comes_later_is_not_the_one_that_left():
    result = stitch(
        Window(0, probabilities([0.8]), RED[None], [track([20, None, None])]),
        Window(1, probabilities([0.7]), GREEN[None], [track([None, None, 22])]),
    )
    assert result["masks"] == [track([20, None, None, None]), track([None, None, None, 22])]


def test_crossing_tracks_are_told_apart_by_their_queries():
    # both are nearly at the same place in the frames that are shared
    right, left = track([8, 10, 12, 14]), track([14, 12, 10, 8])
    right_on, left_on = track([12, 14, 16, 18]), track([10, 8, 6, 4])
    result = stitch(
        Window(0, probabilities([0.9], [0.8]), torch.stack([RED, GREEN]), [right, left]),
        # the rows change places
        Window(2, probabilities([0.8], [0.9]), torch.stack([GREEN, RED]), [left_on, right_on]),
    )
    assert result["masks"] == [track([8, 10, 12, 14, 16, 18]), track([14, 12, 10, 8, 6, 4])]


def test_look_alikes_are_told_apart_by_their_place():
    result = stitch(
        Window(0, probabilities([0.9], [0.8]), torch.stack([RED, RED]),
               [track([0, 0]), track([20, 20])]),
        Window(1, probabilities([0.8], [0.9]), torch.stack([RED, RED]),
               [track([20, 21]), track([0, 1])]),
    )  # fmt: skip
    assert result["masks"] == [track([0, 0, 1]), track([20, 20, 21])]


def test_new_object_in_the_second_window():
    result = stitch(
        Window(0, probabilities([0.9]), RED[None], [track([0, 0, 0])]),
        Window(2, probabilities([0.9], [0.6]), torch.stack([RED, BLUE]),
               [track([0, 0, 0]), track([20, 20, 20])]),
    )  # fmt: skip
    assert result["masks"] == [track([0] * 5), track([None, None, 20, 20, 20])]
    torch.testing.assert_close(result["scores"], torch.tensor([0.9, 0.6]))


def test_gate_keeps_tracks_apart():
    windows = (
        Window(0, probabilities([0.9]), RED[None], [track([0, 0])]),
        Window(1, probabilities([0.8]), RED[None], [track([4, 4])]),
    )
    # IoU 12 / 60 and the same query: (0.2 + 1) / 2
    assert len(stitch(*windows, min_score=0.59)["masks"]) == 1
    assert len(stitch(*windows, min_score=0.61)["masks"]) == 2


def test_nothing_was_added():
    result = TrackStitcher().result(10)
    assert len(result["scores"]) == len(result["labels"]) == len(result["masks"]) == 0


def test_bad_input():
    stitcher = TrackStitcher()
    with pytest.raises(ValueError, match="without gaps"):
        stitcher.add(Window(1, probabilities([0.9]), RED[None], [track([0])]))
    with pytest.raises(ValueError, match="WINDOW_MIN_SCORE is 2"):
        TrackStitcher(2)


def short_tracks(stitcher, windows):
    """Windows of 8 frames that share 4; in each an object of its own is seen in two frames."""
    for number in range(windows):
        probabilities = torch.tensor([[0.9, 0.1]]) if number == 3 else torch.ones(1, 2) / 2
        masks = [[None] * 5 + [square(3)] * 2 + [None]]
        embedding = torch.eye(windows)[number : number + 1]
        stitcher.add(Window(number * 4, probabilities, embedding, masks))
    return stitcher


def test_what_is_kept_does_not_grow_with_the_video():
    stitcher = short_tracks(TrackStitcher(1.0, max_tracks=2, max_absence=10), 100)
    assert len(stitcher._over) == 2 and len(stitcher._tracks) <= 4
    assert all(len(track.masks) == 8 for track in stitcher._over + stitcher._tracks)
    result = stitcher.result(1)
    assert result["scores"].tolist() == pytest.approx([0.9])  # an early one: the best are held
    (track,) = result["masks"]
    assert len(track) == 404 and [i for i, mask in enumerate(track) if mask] == [17, 18]


def test_an_object_that_is_away_for_long_is_another_one():
    """The same query, hidden in the shared frames: joined after a while, not after long."""
    for max_absence, tracks in ((100, 1), (10, 2)):
        stitcher = TrackStitcher(0.3, max_absence=max_absence)
        for start in range(0, 40, 4):
            seen = [square(3)] if start in (0, 36) else [None]
            masks = [[None] * 4 + seen + [None] * 3]
            stitcher.add(Window(start, torch.ones(1, 1), RED[None], masks))
        assert len(stitcher._over + stitcher._tracks) == tracks
