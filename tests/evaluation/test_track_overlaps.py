import numpy as np
import pycocotools.mask as mask_util
import pytest
from toy_coco import encode, rectangle

from msr_d2.benchmark.track_evaluation_reference import iou_by_frame
from msr_d2.evaluation.track_overlaps import MaskTrack, _groups, box_track_iou, mask_track_iou

SQUARE = rectangle(0, 0, 10, 10)


def track(*masks):
    return MaskTrack.from_rles([None if m is None else encode(m) for m in masks])


def random_tracks(rng, count, num_frames=21, size=(30, 40)):
    """Tracks of drifting rectangles as bool (T, H, W) arrays, in which frames may be empty."""
    tracks = []
    for _ in range(count):
        x, y, w, h = rng.integers([0, 0, 5, 5], [25, 15, 15, 15])
        masks = np.zeros((num_frames, *size), dtype=bool)
        for t in range(num_frames):
            if rng.random() < 0.8:
                dx, dy = rng.integers(-1, 2, 2) + t // 7
                masks[t] = rectangle(x + dx, y + dy, x + dx + w, y + dy + h, size)
        tracks.append(masks)
    return tracks


def to_track(masks):
    return track(*(m if m.any() else None for m in masks))


def by_pixels(detected, true):
    """The definition, pixel by pixel."""
    result = np.zeros((len(detected), len(true)))
    for i, d in enumerate(detected):
        for j, g in enumerate(true):
            intersection = union = 0
            for t in range(len(d)):
                intersection += (d[t] & g[t]).sum()
                union += (d[t] | g[t]).sum()
            result[i, j] = intersection / union if union else 0
    return result


@pytest.mark.parametrize("seed", range(4))
def test_equals_pixels(seed):
    rng = np.random.default_rng(seed)
    detected, true = random_tracks(rng, 7), random_tracks(rng, 4)
    detected += [np.zeros_like(true[0]), true[0].copy()]
    expected = by_pixels(detected, true)
    detected, true = ([to_track(x) for x in tracks] for tracks in (detected, true))
    np.testing.assert_array_equal(mask_track_iou(detected, true), expected)
    pairs = [[iou_by_frame(d.rles, g.rles) for g in true] for d in detected]
    np.testing.assert_array_equal(pairs, expected)
    chosen = rng.random(expected.shape) < 0.5
    some = mask_track_iou(detected, true, pairs=chosen)
    np.testing.assert_array_equal(some, expected * chosen)
    # The short cut leaves everything that can matter as it is.
    fast = mask_track_iou(detected, true, min_iou=0.5)
    assert (expected >= 0.5).any() and (expected[expected < 0.5] > 0).any()
    np.testing.assert_array_equal(fast[expected >= 0.5], expected[expected >= 0.5])
    assert (fast[expected < 0.5] < 0.5).all()


def test_absent_objects_add_to_the_union():
    half = rectangle(0, 0, 10, 5)
    detected = [track(SQUARE, half, None, SQUARE)]
    # Intersections 100, 50, 0, 0; unions 100, 100, 100, 100.
    iou = mask_track_iou(detected, [track(SQUARE, SQUARE, SQUARE, None)])
    assert iou.tolist() == [[150 / 400]]


def test_bits_of_large_masks():
    """Intersections come back from a ratio: they must be exact up to the largest frames."""
    rng = np.random.default_rng(0)
    size = (2160, 3840)
    masks = []
    for _ in range(6):
        x, y, w, h = rng.integers([0, 0, 1, 1], [1500, 900, 2300, 1200])
        masks.append(rectangle(x, y, x + w, y + h, size))
    detected, true = [track(x) for x in masks[:3]], [track(x) for x in masks[3:]]
    expected = [[iou_by_frame(d.rles, g.rles) for g in true] for d in detected]
    assert np.count_nonzero(expected) == 6
    np.testing.assert_array_equal(mask_track_iou(detected, true), expected)


def test_groups_are_the_connected_parts():
    # Detections 0 and 1 share truth 0, detection 1 has truth 2 as well; truths 1 and 3 have one.
    pairs = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    rows, columns = _groups(pairs)
    assert rows.tolist() == [0, 0, 1, 3] and columns.tolist() == [0, 1, 0, 3]
    # A chain through all of them is one part.
    chain = np.eye(9, dtype=bool) | np.eye(9, k=1, dtype=bool)
    rows, columns = _groups(chain)
    assert set(rows.tolist()) == set(columns.tolist()) == {0}


def test_pairs_of_different_groups_in_one_frame():
    """Two pairs at one place, with a truth each that only one of the detections can reach."""
    large, small = rectangle(0, 0, 20, 20), rectangle(0, 0, 4, 4)
    tracks = [track(large), track(small)]
    assert mask_track_iou(tracks, tracks, min_iou=0.5).tolist() == [[1, 0], [0, 1]]
    assert mask_track_iou(tracks, tracks).tolist() == [[1, 0.04], [0.04, 1]]


def test_tracks_of_different_lengths_are_measured_together():
    both = MaskTrack.from_many([[encode(SQUARE), None], [], [None, None, encode(SQUARE)]])
    assert [x.areas.tolist() for x in both] == [[100, 0], [], [0, 0, 100]]
    assert MaskTrack.from_many([]) == []


def test_tracks_without_a_pixel_overlap_nothing():
    empty = track(None, rectangle(0, 0, 0, 0))
    iou = mask_track_iou([empty, track(SQUARE, None)], [empty, track(None, SQUARE)])
    assert iou.tolist() == [[0, 0], [0, 0]]


def test_frames_are_not_mixed():
    """More frames than go into one call; the same place at another time is no overlap."""
    length = 20
    place = [rectangle(t, 0, t + 1, 20) for t in range(length)]
    later = [rectangle((t + 1) % length, 0, (t + 1) % length + 1, 20) for t in range(length)]
    iou = mask_track_iou([track(*later), track(*place)], [track(*place)])
    assert iou.tolist() == [[0], [1]]


def test_long_tracks():
    # pycocotools fails on lists of more than 255 masks (numpy 2).
    masks = MaskTrack.from_rles([encode(SQUARE)] * 300)
    assert masks.areas.tolist() == [100] * 300
    assert mask_track_iou([masks], [masks]).tolist() == [[1]]


def test_pycocotools_skips_masks_of_different_sizes():
    """What the comparison of many frames in one call relies on."""
    rle = encode(SQUARE)
    wider = {"size": [20, 21], "counts": rle["counts"]}
    assert mask_util.iou([rle, wider], [rle, wider], [1, 1]).tolist() == [[1, -1], [-1, 1]]


def test_boxes():
    absent = [0, 0, 0, 0]
    detected = np.array([[[0, 0, 10, 10], [5, 5, 10, 10], absent]])
    true = np.array([[[0, 0, 10, 10], [10, 10, 10, 10], [0, 0, 2, 2]], [absent] * 3])
    # Intersections 100, 25, 0; areas 200 and 204.
    assert box_track_iou(detected, true).tolist() == [[125 / (404 - 125), 0]]
