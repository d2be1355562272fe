import pytest
import torch
from torch.nn import functional as F

from msr_d2.layers.patch_matching import nearest_patches, window_offsets


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def brute_force(first, second, offsets, usable, patch_size, metric, outside_is_black):
    """Distances (O, h, w) of each candidate by comparing patches one by one."""
    height, width = first.shape[-2:]
    margin = patch_size // 2
    first, second = F.pad(first, [margin] * 4), F.pad(second, [margin] * 4)
    distance = torch.full((len(offsets), height, width), float("inf"))
    for y in range(height):
        for x in range(width):
            patch = second[:, y : y + patch_size, x : x + patch_size]
            for o, (dy, dx) in enumerate(offsets):
                v, u = y + dy, x + dx
                other = torch.zeros_like(patch)
                if 0 <= v < height and 0 <= u < width and usable[v, u]:
                    other = first[:, v : v + patch_size, u : u + patch_size]
                elif not outside_is_black:
                    continue
                distance[o, y, x] = (patch - other).flatten().norm(p=1 if metric == "l1" else 2)
    return distance


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("patch_size", [1, 3, 5])
@pytest.mark.parametrize(
    "offsets, black", [(window_offsets(2), False), (window_offsets(1, dilation=3), True)]
)
def test_against_brute_force(metric, patch_size, offsets, black):
    first, second = torch.randn(2, 2, 3, 6, 8)
    usable = torch.rand(2, 6, 8) > 0.2 if not black else torch.ones(2, 6, 8, dtype=torch.bool)
    distance, index = nearest_patches(
        first, second, offsets, usable, patch_size, 4, metric, outside_is_black=black
    )
    for pair in range(2):
        expected = brute_force(
            first[pair], second[pair], offsets, usable[pair], patch_size, metric, black
        )
        nearest = expected.sort(dim=0)
        torch.testing.assert_close(distance[pair], nearest.values[:4], atol=1e-4, rtol=1e-5)
        _check_index(index[pair], nearest, offsets, usable[pair])


def _check_index(index, nearest, offsets, usable):
    for k, y, x in torch.cartesian_prod(*(torch.arange(n) for n in index.shape)).tolist():
        dy, dx = offsets[nearest.indices[k, y, x]]
        v, u = y + dy, x + dx
        inside = 0 <= v < index.shape[1] and 0 <= u < index.shape[2] and usable[v, u]
        if nearest.values[k, y, x] < float("inf") and _no_tie(nearest.values, k, y, x):
            assert index[k, y, x] == (v * index.shape[2] + u if inside else -1)


def _no_tie(values, k, y, x):
    """Several candidates outside of the grid are equally far."""
    column = values[:, y, x]
    return ((column - column[k]).abs() < 1e-5).sum() == 1


def test_pieces_of_rows_and_pairs_change_nothing(monkeypatch):
    first, second = torch.randn(2, 3, 2, 11, 7)
    usable = torch.ones(3, 11, 7, dtype=torch.bool)
    whole = nearest_patches(first, second, window_offsets(2), usable)
    monkeypatch.setattr("msr_d2.layers.patch_matching._CPU_CELLS", 20)
    for a, b in zip(whole, nearest_patches(first, second, window_offsets(2), usable)):
        assert torch.equal(a, b)


def test_identical_frames_match_in_place():
    frame = torch.randn(1, 3, 9, 9)
    usable = torch.ones(1, 9, 9, dtype=torch.bool)
    distance, index = nearest_patches(frame, frame, window_offsets(3), usable)
    assert (distance[:, 0] == 0).all()
    assert torch.equal(index[0, 0].flatten(), torch.arange(81))


def test_shifted_frame_matches_at_the_shift():
    second = torch.randn(1, 3, 12, 12)
    first = second.roll((3, -2), dims=(2, 3))
    usable = torch.ones(1, 12, 12, dtype=torch.bool)
    distance, index = nearest_patches(first, second, window_offsets(3), usable)
    inner = (0, 0, slice(1, 8), slice(3, 11))
    assert (distance[inner] < 1e-6).all()
    place = torch.arange(144).view(12, 12)
    assert torch.equal(index[inner], place[slice(1, 8), slice(3, 11)] + 3 * 12 - 2)


def test_ties_go_to_the_nearest_cells():
    frame = torch.ones(1, 1, 9, 9)
    usable = torch.ones(1, 9, 9, dtype=torch.bool)
    distance, index = nearest_patches(frame, frame, window_offsets(2), usable, top_k=5)
    assert (distance[0, :, 4, 4] == 0).all()
    assert set(index[0, :, 4, 4].tolist()) == {40, 39, 41, 31, 49}


def test_fewer_candidates_than_neighbours():
    frame = torch.randn(1, 3, 4, 4)
    usable = torch.zeros(1, 4, 4, dtype=torch.bool)
    usable[0, 1, 1] = True
    distance, index = nearest_patches(frame, frame, window_offsets(1), usable, top_k=3)
    assert index[0, 0, 0, 0] == 5 and distance[0, 0].isfinite().sum() == 9
    assert distance[0, 1:].isinf().all() and (index[0, 1:] == -1).all()


def test_unknown_metric():
    frame = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="'cosine'.*l2, l1"):
        nearest_patches(frame, frame, window_offsets(1), frame[:, 0] == 0, metric="cosine")


def test_window_offsets_start_at_the_centre():
    assert window_offsets(0) == [(0, 0)]
    assert len(window_offsets(5)) == 121 and window_offsets(5)[0] == (0, 0)
    assert set(window_offsets(1, 3)) == {(dy, dx) for dy in (-3, 0, 3) for dx in (-3, 0, 3)}
