import dataclasses

import pytest
import torch

from msr_d2.benchmark import box_losses_reference as reference
from msr_d2.config import get_cfg
from msr_d2.layers.color import rgb_to_lab
from msr_d2.mask_free_vis.affinities import (
    clip_affinities,
    color_edges,
    frame_pairs,
    match_frames,
    padding_gate,
    valid_cells,
)
from msr_d2.mask_free_vis.box_settings import GRID, PairwiseSettings, TemporalSettings
from msr_d2.mask_free_vis.clips import TargetSettings, clip_targets
from msr_d2.mask_free_vis.filled_boxes import clip_boxes
from msr_d2.testing import tiny_clips

OFFICIAL = TemporalSettings(candidates=GRID, threshold="similarity")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def one_box(x1, y1, x2, y2, size=(32, 48), **kwargs):
    boxes = clip_boxes(
        torch.tensor([[[x1, y1, x2, y2]]]).float(), torch.tensor([[True]]), size, 4, **kwargs
    )
    return boxes.x_profile[0, 0].tolist(), boxes.y_profile[0, 0].tolist()


def everywhere(clip):
    return torch.ones(len(clip), *clip.shape[-2:], dtype=torch.bool)


# ------------------------------------------------------------------------------------- boxes


def test_hard_boxes_hold_the_cells_whose_centre_is_inside():
    x, y = one_box(2, 6.1, 14, 32)  # centres 2, 6, 10, 14, ...
    assert x == [1, 1, 1, 1] + [0] * 8
    assert y == [0, 0] + [1] * 6


def test_hard_boxes_have_a_cell_at_least():
    assert one_box(4.5, 5, 5, 5.5) == ([0, 1] + [0] * 10, [0, 1] + [0] * 6)
    # without any extent, at the far corner and beyond it
    assert one_box(48, 32, 48, 32) == ([0] * 11 + [1], [0] * 7 + [1])
    assert one_box(60, 40, 70, 50) == ([0] * 11 + [1], [0] * 7 + [1])
    assert one_box(-9, -9, -7, -7) == ([1] + [0] * 11, [1] + [0] * 7)


def test_full_image_and_absent_boxes():
    boxes = torch.tensor([[[0, 0, 48, 32], [0, 0, 48, 32]]]).float()
    for edges in ("hard", "soft"):
        targets = clip_boxes(boxes, torch.tensor([[True, False]]), (32, 48), 4, edges)
        assert (targets.filled()[:, 0] == 1).all() and (targets.filled()[:, 1] == 0).all()
        assert targets.present.tolist() == [[True, False]]


def test_soft_boxes_are_the_resized_filled_boxes():
    corner = torch.randint(0, 12, (4, 3, 2))
    boxes = torch.cat([corner, corner + torch.randint(1, 20, (4, 3, 2))], dim=-1).float()
    present = torch.rand(4, 3) > 0.2
    for stride in (4, 2, 1):
        result = clip_boxes(boxes, present, (32, 36), stride, "soft").filled()
        expected = reference.soft_filled_boxes(boxes, present, (32, 36), stride)
        torch.testing.assert_close(result, expected)


def test_soft_boxes_by_hand():
    # pixels 2..9 are filled; cell j reads pixels 4 j + 1 and 4 j + 2
    x, _ = one_box(2, 0, 10, 8, edges="soft")
    assert x[:4] == [0.5, 1, 0.5, 0]


def test_union_of_all_frames():
    boxes = torch.tensor([[[0, 0, 8, 8], [8, 0, 16, 8]], [[0, 0, 4, 4], [40, 0, 48, 8]]]).float()
    union = clip_boxes(boxes, torch.tensor([[True, True], [True, False]]), (8, 48), 4).union()
    assert union[0].int().tolist() == [[1] * 4 + [0] * 8] * 2
    assert union[1].int().tolist() == [[1] + [0] * 11, [0] * 12]


def test_soft_union_adds_up_half_cells():
    boxes = torch.tensor([[[0, 0, 6, 8], [0, 0, 6, 8], [0, 0, 2, 8]]]).float()
    present = torch.ones(1, 3, dtype=torch.bool)
    union = clip_boxes(boxes, present, (8, 16), 4, "soft").union()
    # cell 1 has 0.5 in two frames; alone, it would not count
    assert union[0, 0].tolist() == [True, True, False, False]
    union = clip_boxes(boxes[:, 1:], present[:, 1:], (8, 16), 4, "soft").union()
    assert union[0, 0].tolist() == [True, False, False, False]


def test_no_instances():
    targets = clip_boxes(torch.zeros(0, 3, 4), torch.zeros(0, 3, dtype=torch.bool), (32, 48), 4)
    assert targets.filled().shape == (0, 3, 8, 12) and targets.union().shape == (0, 8, 12)


def test_bad_arguments_of_boxes():
    boxes, present = torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="BOX_EDGES is 'round'"):
        clip_boxes(boxes, present, (32, 48), 4, "round")
    with pytest.raises(ValueError, match="30 x 48.*SIZE_DIVISIBILITY"):
        clip_boxes(boxes, present, (30, 48), 4)


# ------------------------------------------------------------------------------------- edges


def test_edges_of_equal_colours():
    lab = torch.zeros(1, 3, 5, 6)
    edges = color_edges(lab, everywhere(lab), PairwiseSettings())
    counts = edges[0].sum(0)
    assert counts[2, 2] == 8 and counts[0, 0] == 3 and counts[0, 2] == 5
    # officially, what lies outside is black like the image
    official = color_edges(lab, everywhere(lab), PairwiseSettings(), outside_is_black=True)
    assert official.all()
    official = color_edges(lab + 50, everywhere(lab), PairwiseSettings(), outside_is_black=True)
    assert torch.equal(official, edges)


@pytest.mark.parametrize("difference, similar", [(2.40, True), (2.42, False)])
def test_threshold_of_edges(difference, similar):
    # exp(-d / 2) >= 0.3 up to d = 2.408
    lab = torch.zeros(1, 3, 1, 3)
    lab[0, 1, 0, 2] = difference
    edges = color_edges(lab, everywhere(lab), PairwiseSettings())
    assert edges[0, 4, 0, 0] == edges[0, 3, 0, 2] == similar


@pytest.mark.parametrize("black", [False, True])
def test_edges_against_unfolding(black):
    lab, settings = torch.randn(2, 3, 7, 9) * 2, PairwiseSettings(size=5, dilation=1)
    valid = everywhere(lab)
    valid[0, 5:] = black
    edges = color_edges(lab, valid, settings, outside_is_black=black)
    expected = reference.color_edges(lab, None if black else valid, settings)
    assert torch.equal(edges, expected) and 0.05 < edges.float().mean() < 0.95


@pytest.mark.parametrize("share, open_gate", [(0.25, False), (0.5, True), (0.75, False)])
def test_padding_gate(share, open_gate):
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[:, : int(4 * share)] = False
    edges = torch.ones(1, 8, 4, 4, dtype=torch.bool)
    assert padding_gate(edges, valid).all() == open_gate


# ----------------------------------------------------------------------------------- matches


def test_frame_pairs():
    assert frame_pairs(5, "cyclic") == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
    assert frame_pairs(2, "cyclic") == [(0, 1), (1, 0)]
    assert frame_pairs(3, "all") == [(0, 1), (0, 2), (1, 2)]
    assert sorted(frame_pairs(3, "dense")) == [(i, j) for i in range(3) for j in range(3) if i != j]
    assert all(frame_pairs(1, tube) == [] for tube in ("cyclic", "all", "dense"))
    with pytest.raises(ValueError, match="TUBE is 'chain'"):
        frame_pairs(3, "chain")


@pytest.mark.parametrize("candidates", ["dense", GRID])
@pytest.mark.parametrize("threshold", ["distance", "similarity"])
@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("black", [False, True])
def test_matches_against_unfolding(candidates, threshold, metric, black):
    settings = TemporalSettings(
        candidates, 2, threshold=threshold, metric=metric, distance=0.3, similarity=1e-3
    )
    scale = {"l2": 5, "l1": 1} if threshold == "distance" else {"l2": 2, "l1": 0.4}
    raw = torch.randn(3, 3, 9, 10) * scale[metric]
    valid = everywhere(raw)
    if not black:
        valid[0, :, 7:], valid[1:, 8:] = False, False
        raw = raw * valid[:, None]
    scaled = raw / 100 if threshold == "distance" else raw
    found = 0
    for pair in match_frames(raw, valid, settings, black):
        i, j = pair.first, pair.second
        both = None if black else valid[[i, j]]
        expected = reference.frame_matches(scaled[i], scaled[j], both, settings)
        assert torch.equal(pair.valid.sum(0), expected.sum(0))
        for k, y, x in (pair.valid & (pair.index >= 0)).nonzero().tolist():
            v, u = divmod(pair.index[k, y, x].item(), 10)
            step, reach = (3, 1) if candidates == GRID else (1, 2)
            offset = ((v - y) // step + reach) * (2 * reach + 1) + (u - x) // step + reach
            assert expected[offset, y, x]
            found += 1
    assert found > 100


def test_identical_frames_match_in_place():
    raw = torch.randn(1, 3, 8, 9).expand(3, -1, -1, -1) * 30
    for settings in (TemporalSettings(radius=2), OFFICIAL):
        for pair in match_frames(raw, everywhere(raw), settings):
            assert pair.valid[0].all()
            assert torch.equal(pair.index[0].flatten(), torch.arange(72))


def test_centres_are_in_the_second_frame():
    """A pixel that moves from (2, 3) to (3, 3)."""
    raw = torch.zeros(2, 3, 8, 8)
    raw[0, 0, 2, 3] = raw[1, 0, 3, 3] = 90.0
    settings = TemporalSettings(radius=1, top_k=1, patch_size=1)
    pair = match_frames(raw, everywhere(raw), settings)[0]
    assert (pair.first, pair.second) == (0, 1)
    assert pair.index[0, 3, 3] == 2 * 8 + 3 and pair.valid[0, 3, 3]


def test_a_constant_colour_has_all_matches_inside():
    raw = torch.full((2, 3, 8, 9), 40.0)
    pair = match_frames(raw, everywhere(raw), TemporalSettings(radius=1))[0]
    assert pair.valid[:, 2:-2, 2:-2].all()
    # patches that reach over the border look alike only along the border
    assert pair.valid[:3, 0, 4].all() and not pair.valid[3:, 0, 4].any()
    assert pair.index[:3, 0, 4].sort().values.tolist() == [3, 4, 5]


def test_no_match_beyond_the_threshold():
    raw = torch.zeros(2, 3, 6, 6)
    raw[1] = 5.01 / 27**0.5  # the norm of a patch is 5.01, or 0.0501 for LAB / 100
    settings = (everywhere(raw), TemporalSettings(candidates=GRID), True)
    assert not match_frames(raw, *settings)[0].valid[:, 1:-1, 1:-1].any()
    raw[1] = 4.99 / 27**0.5
    assert match_frames(raw, *settings)[0].valid.all()


@pytest.mark.parametrize("candidates", ["dense", GRID])
def test_candidates_outside_count_when_black(candidates):
    raw, settings = torch.zeros(2, 3, 7, 7), TemporalSettings(candidates, radius=1, top_k=9)
    pair = match_frames(raw, everywhere(raw), settings, outside_is_black=True)[0]
    assert pair.valid.all() and (pair.index[:, 0, 0] == -1).sum() == 5
    pair = match_frames(raw, everywhere(raw), settings)[0]
    assert pair.valid[:, 0, 0].sum() == 4 and (pair.index[:, 0, 0] == -1).sum() == 5


# ------------------------------------------------------------------------------ whole clips


def textured_clip(frames=3, size=(32, 40)):
    return torch.randint(0, 40, (frames, 3, *size), dtype=torch.uint8) + 100


def test_affinities_use_lab_of_pooled_frames():
    clip = torch.zeros(1, 3, 4, 8)
    clip[:, :, :, 4:] = 10.0
    clip[:, :, 0, 4:] = 13.9  # mean (3 * 10 + 13.9) / 4 = 10.975, truncated to 10
    lab = rgb_to_lab(torch.full((3, 1, 1), 10))[:, 0, 0]
    settings = PairwiseSettings(dilation=1, theta=1.0, color_threshold=0.0)
    distance = lab.norm().item()
    for margin, similar in ((1e-3, True), (-1e-3, False)):
        threshold = torch.exp(torch.tensor(-distance - margin)).item()
        settings = dataclasses.replace(settings, color_threshold=threshold)
        sizes = torch.tensor([[4, 8]])
        edges = clip_affinities(clip, sizes, 4, settings, TemporalSettings()).edges
        assert edges.shape == (1, 8, 1, 2) and edges[0, 4, 0, 0] == similar


def test_swapped_channels():
    clip, settings = textured_clip(), (PairwiseSettings(), TemporalSettings(radius=2))
    sizes = torch.tensor([[32, 40]] * 3)
    swapped = clip_affinities(clip, sizes, 4, *settings, lab_swap_channels=True)
    expected = clip_affinities(clip.flip(1), sizes, 4, *settings)
    plain = clip_affinities(clip, sizes, 4, *settings)
    assert torch.equal(swapped.edges, expected.edges)
    assert not torch.equal(swapped.edges, plain.edges)


def test_more_padding_changes_nothing():
    clip = textured_clip()
    clip[:, :, 28:], clip[..., 36:] = 0, 0  # padding
    sizes = torch.tensor([[29, 36]] * 3)
    settings = (PairwiseSettings(), TemporalSettings(radius=2, distance=0.6))
    padded = clip_affinities(clip, sizes, 4, *settings)
    cropped = clip_affinities(clip[:, :, :28, :36], torch.tensor([[28, 36]] * 3), 4, *settings)
    assert torch.equal(padded.edges[..., :7, :9], cropped.edges) and cropped.edges.any()
    assert padded.edges.sum() == cropped.edges.sum()
    for a, b in zip(padded.matches, cropped.matches):
        assert torch.equal(a.valid[:, :7, :9], b.valid) and b.valid.any()
        assert a.valid.sum() == b.valid.sum()
        rows, columns = a.index[:, :7, :9] // 10, a.index[:, :7, :9] % 10
        assert torch.equal((rows * 9 + columns)[b.valid], b.index[b.valid])


@pytest.mark.parametrize("temporal", [TemporalSettings(), OFFICIAL, None])
def test_officially_padding_is_black(temporal):
    """Whatever the candidates are, and without matches."""
    clip, sizes = torch.zeros(2, 3, 16, 16), torch.tensor([[12, 12]] * 2)
    settings = (PairwiseSettings(), temporal)
    official = clip_affinities(clip, sizes, 4, *settings, outside_is_black=True)
    assert official.edges.all() and all(pair.valid.any(0).all() for pair in official.matches)
    ours = clip_affinities(clip, sizes, 4, *settings)
    assert not ours.edges[..., 3:, :].any() and ours.edges.any()
    for pair in ours.matches:
        assert not pair.valid[..., 3:].any() and pair.valid.any()


@pytest.mark.parametrize("weight", [0.1, 0.0])
def test_official_edges_do_not_hang_on_the_temporal_loss(weight):
    cfg = get_cfg()
    cfg.MODEL.MASK_FREE.LAMBDA_TEMP = weight
    assert not TargetSettings.from_config(cfg).outside_is_black
    cfg.MODEL.MASK_FREE.OUTSIDE = "black"
    settings = TargetSettings.from_config(cfg)
    (item,) = tiny_clips(num_clips=1, num_frames=2)
    padded = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)  # of 64 x 96, all black
    assert clip_targets(item, padded, settings).affinities.edges.all()
    ours = dataclasses.replace(settings, outside_is_black=False)
    edges = clip_targets(item, padded, ours).affinities.edges
    assert edges.any() and not edges[:, :, 16:].any()


def test_unknown_outside():
    cfg = get_cfg()
    cfg.MODEL.MASK_FREE.OUTSIDE = "grey"
    with pytest.raises(ValueError, match="MODEL.MASK_FREE.OUTSIDE is 'grey'"):
        TargetSettings.from_config(cfg)


def test_valid_cells_hold_no_padding():
    cells = valid_cells(torch.tensor([[9, 8], [12, 16]]), (3, 4), 4)
    assert cells[0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert cells[1].all()
    settings = (PairwiseSettings(), TemporalSettings())
    clip = textured_clip(2, (12, 16))
    by_mask = clip_affinities(clip, cells, 4, *settings)
    by_size = clip_affinities(clip, torch.tensor([[9, 8], [12, 16]]), 4, *settings)
    assert torch.equal(by_mask.edges, by_size.edges)


def test_a_single_frame_has_no_matches():
    clip = textured_clip(1)
    sizes = torch.tensor([[32, 40]])
    assert clip_affinities(clip, sizes, 4, PairwiseSettings(), TemporalSettings()).matches == []


def test_what_is_not_needed_is_not_made():
    clip, sizes = textured_clip(), torch.tensor([[32, 40]] * 3)
    assert clip_affinities(clip, sizes, 4, None, TemporalSettings()).edges is None
    assert clip_affinities(clip, sizes, 4, PairwiseSettings(), None).matches == []


def test_padding_gate_is_for_images():
    settings = PairwiseSettings(padding_gate=True), TemporalSettings()
    clip = torch.zeros(2, 3, 32, 32)
    sizes = torch.tensor([[32, 32]] * 2)  # no padding: closed
    assert not clip_affinities(clip[:1], sizes[:1], 4, *settings).edges.any()
    assert clip_affinities(clip, sizes, 4, *settings).edges.any()
    half = torch.tensor([[16, 32]])
    assert clip_affinities(clip[:1], half, 4, *settings).edges.any()


def test_colours_of_the_matches():
    """Equal lightness, other hue: RGB and LAB differ in scale."""
    clip, sizes = textured_clip(2), torch.tensor([[32, 40]] * 2)
    for color, scale in (("lab", 100), ("rgb", 255)):
        settings = TemporalSettings(radius=1, color=color, distance=0.3)
        pooled = torch.nn.functional.avg_pool2d(clip.float(), 4).floor()
        values = (rgb_to_lab(pooled) if color == "lab" else pooled) / scale
        expected = reference.frame_matches(*values, torch.ones(2, 8, 10) > 0, settings)
        valid = clip_affinities(clip, sizes, 4, None, settings).matches[0].valid
        assert torch.equal(valid.sum(0), expected.sum(0)) and 0 < valid.sum() < valid.numel()


# --------------------------------------------------------------------------------- settings


def test_settings_of_the_config():
    free = get_cfg().MODEL.MASK_FREE
    assert PairwiseSettings.from_config(free.PAIRWISE) == PairwiseSettings()
    assert TemporalSettings.from_config(free.TEMPORAL) == TemporalSettings()
    free.TEMPORAL.RADIUS, free.PAIRWISE.THETA = 3, 0.7
    assert TemporalSettings.from_config(free.TEMPORAL).radius == 3
    assert PairwiseSettings.from_config(free.PAIRWISE).theta == 0.7


@pytest.mark.parametrize(
    "settings, name, value",
    [
        (PairwiseSettings, "size", 4),
        (PairwiseSettings, "size", 1),
        (PairwiseSettings, "dilation", 0),
        (PairwiseSettings, "color_threshold", 1.5),
        (PairwiseSettings, "theta", -1.0),
        (PairwiseSettings, "warmup_iters", -1),
        (TemporalSettings, "candidates", "disc"),
        (TemporalSettings, "radius", -1),
        (TemporalSettings, "patch_size", 2),
        (TemporalSettings, "top_k", 0),
        (TemporalSettings, "threshold", "both"),
        (TemporalSettings, "distance", float("nan")),
        (TemporalSettings, "similarity", -0.1),
        (TemporalSettings, "color", "hsv"),
        (TemporalSettings, "metric", "cosine"),
        (TemporalSettings, "tube", "chain"),
        (TemporalSettings, "normalise", "none"),
        (TemporalSettings, "warmup_iters", -1),
    ],
)
def test_bad_settings_name_the_key(settings, name, value):
    with pytest.raises(ValueError, match=rf"MODEL.MASK_FREE.\w+.{name.upper()} is {value!r}"):
        settings(**{name: value})
