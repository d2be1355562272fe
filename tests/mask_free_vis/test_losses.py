import math

import pytest
import torch

from msr_d2.benchmark import box_losses_reference as reference
from msr_d2.mask_free_vis.affinities import color_edges, match_frames
from msr_d2.mask_free_vis.box_settings import GRID, PairwiseSettings, TemporalSettings
from msr_d2.mask_free_vis.filled_boxes import clip_boxes
from msr_d2.mask_free_vis.losses import (
    pairwise_color_loss,
    pairwise_color_sums,
    pool,
    projection_loss,
    projection_sums,
    temporal_knn_patch_loss,
    temporal_knn_patch_sums,
)

HEIGHT, WIDTH = 9, 11


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


class Clip:
    """Random colours and boxes; edges and matches in the paper's or the official form."""

    def __init__(self, official=False, instances=3, frames=4, edges="hard", **temporal):
        form = {"candidates": GRID, "threshold": "similarity"} if official else {"radius": 2}
        self.temporal = TemporalSettings(**{**form, "distance": 0.3, **temporal})
        self.pairwise = PairwiseSettings()
        self.colors = torch.randn(frames, 3, HEIGHT, WIDTH) * (0.7 if official else 4)
        self.valid = torch.ones(frames, HEIGHT, WIDTH, dtype=torch.bool)
        corner = torch.rand(instances, frames, 2) * 16
        boxes = torch.cat([corner, corner + 8 + torch.rand(instances, frames, 2) * 16], dim=2)
        present = torch.rand(instances, frames) > 0.2
        size = (HEIGHT * 4, WIDTH * 4)
        self.boxes = clip_boxes(boxes, present, size, 4, edges)
        self.matches = match_frames(self.colors, self.valid, self.temporal, official)
        self.edges = color_edges(self.colors, self.valid, self.pairwise, official)
        self.reference_valid = None if official else self.valid
        scale = 100 if self.temporal.threshold == "distance" else 1
        self.scaled = self.colors / scale

    def logits(self, *outputs, **kwargs):
        shape = (*outputs, *self.boxes.present.shape, HEIGHT, WIDTH)
        return (torch.randn(shape, **kwargs) * 4).requires_grad_()


def assert_same_with_gradient(losses, expected, logits):
    assert (losses > 0).all()
    torch.testing.assert_close(losses, expected)
    factors = torch.arange(1.0, len(losses) + 1)
    gradients = [torch.autograd.grad((x * factors).sum(), logits)[0] for x in (losses, expected)]
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


# ------------------------------------------------------------------------------- projection


@pytest.mark.parametrize("edges", ["hard", "soft"])
def test_projection_against_the_official_form(edges):
    clip = Clip(edges=edges)
    logits = clip.logits(2)
    expected = torch.stack([reference.projection_loss(x, clip.boxes.filled()) for x in logits])
    assert_same_with_gradient(projection_loss(logits, clip.boxes, "official"), expected, logits)


def full_image(present, frames=1):
    boxes = torch.tensor([0.0, 0, WIDTH * 4, HEIGHT * 4]).expand(1, frames, 4)
    return clip_boxes(boxes, torch.tensor([present]), (HEIGHT * 4, WIDTH * 4), 4)


def test_projection_of_a_perfect_mask_is_zero():
    logits = torch.full((1, 1, HEIGHT, WIDTH), 20.0)
    assert projection_loss(logits, full_image([True])).item() == pytest.approx(0, abs=1e-5)
    # one stroke along the diagonal touches all rows and columns
    diagonal = torch.full((1, 1, HEIGHT, WIDTH), -20.0)
    for i in range(WIDTH):
        diagonal[..., min(i, HEIGHT - 1), i] = 20.0
    assert projection_loss(diagonal, full_image([True])).item() == pytest.approx(0, abs=1e-5)


def test_projection_by_hand():
    # probability 1/2 everywhere: 1 - 2 * n / 2 / (n / 4 + n) = 0.2 for each axis
    logits = torch.zeros(1, 1, HEIGHT, WIDTH)
    assert projection_loss(logits, full_image([True])).item() == pytest.approx(0.4, abs=1e-5)


def test_projection_of_absent_frames():
    boxes = full_image([True, False], frames=2)
    logits = torch.zeros(1, 2, HEIGHT, WIDTH, requires_grad=True)

    def loss_and_gradient(absent):
        loss = projection_loss(logits, boxes, absent)
        return loss.item(), torch.autograd.grad(loss, logits)[0][0, 1]

    loss, gradient = loss_and_gradient("official")
    assert loss == pytest.approx((0.4 + 2) / 2, abs=1e-5) and (gradient == 0).all()
    loss, gradient = loss_and_gradient("none")
    assert loss == pytest.approx(0.4, abs=1e-5) and (gradient == 0).all()
    loss, gradient = loss_and_gradient("suppress")
    assert loss == pytest.approx((0.4 + 1) / 2, abs=1e-5)
    assert (gradient >= 0).all() and gradient.sum() > 0
    # a quarter of the slope of the mean over an axis, halved by the mean over two frames
    assert gradient.sum().item() == pytest.approx(2 * 0.25 / 2)


def test_suppressed_masks_vanish():
    logits = torch.full((1, 1, HEIGHT, WIDTH), -30.0)
    assert projection_loss(logits, full_image([False])).item() < 1e-10


def test_all_frames_absent_and_left_out():
    logits = torch.randn(2, 1, 1, HEIGHT, WIDTH, requires_grad=True)
    loss = projection_loss(logits, full_image([False]), "none")
    loss.sum().backward()
    assert loss.tolist() == [0, 0] and (logits.grad == 0).all()


# ------------------------------------------------------------------------- pairwise colours


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("edges", ["hard", "soft"])
def test_pairwise_against_unfolding(official, edges):
    clip = Clip(official, edges=edges)
    logits = clip.logits(2)
    settings = (clip.colors, clip.boxes.filled(), clip.reference_valid, clip.pairwise)
    expected = torch.stack([reference.pairwise_color_loss(x, *settings) for x in logits])
    losses = pairwise_color_loss(logits, clip.edges, clip.boxes)
    assert_same_with_gradient(losses, expected, logits)


def test_pairwise_by_hand():
    """Cells (0, 0) and (0, 2) alike, the box on the first: one edge from one end."""
    edges = torch.zeros(1, 8, 1, 4, dtype=torch.bool)
    edges[0, 4, 0, 0] = edges[0, 3, 0, 2] = True
    boxes = clip_boxes(torch.tensor([[[0.0, 0, 4, 4]]]), torch.tensor([[True]]), (4, 16), 4)
    logits = torch.tensor([20.0, 9.0, -20.0, 9.0]).view(1, 1, 1, 4)
    loss, weight = pairwise_color_sums(logits, edges, boxes)
    assert loss.item() == pytest.approx(20 - math.log(2), abs=1e-5) and weight.item() == 1
    # the box on both: twice the loss, twice the weight
    boxes = clip_boxes(torch.tensor([[[0.0, 0, 16, 4]]]), torch.tensor([[True]]), (4, 16), 4)
    loss, weight = pairwise_color_sums(logits, edges, boxes)
    assert loss.item() == pytest.approx(2 * (20 - math.log(2)), abs=1e-5) and weight.item() == 2


def test_out_of_image_neighbours_count_in_the_denominator_only():
    edges = torch.ones(1, 8, 1, 1, dtype=torch.bool)
    boxes = clip_boxes(torch.tensor([[[0.0, 0, 4, 4]]]), torch.tensor([[True]]), (4, 4), 4)
    loss, weight = pairwise_color_sums(torch.zeros(1, 1, 1, 1), edges, boxes)
    assert loss.item() == 0 and weight.item() == 8


# -------------------------------------------------------------------------------- TK-loss


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("tube", ["cyclic", "all", "dense"])
@pytest.mark.parametrize("normalise", ["matches", "hw"])
def test_temporal_against_unfolding(official, tube, normalise):
    clip = Clip(official, tube=tube, normalise=normalise, edges="soft" if official else "hard")
    logits = clip.logits(2)
    settings = (clip.scaled, clip.boxes.filled(), clip.reference_valid, clip.temporal)
    expected = torch.stack([reference.temporal_knn_patch_loss(x, *settings) for x in logits])
    losses = temporal_knn_patch_loss(logits, clip.matches, clip.boxes.union(), normalise)
    assert_same_with_gradient(losses, expected, logits)


@pytest.mark.parametrize("frames, pairs", [(2, 2), (5, 5)])
def test_temporal_of_certain_masks(frames, pairs):
    colors = torch.ones(frames, 3, HEIGHT, WIDTH)
    valid = torch.ones(frames, HEIGHT, WIDTH, dtype=torch.bool)
    matches = match_frames(colors, valid, TemporalSettings(radius=1))
    region = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    for value in (20.0, -20.0):
        logits = torch.full((1, frames, HEIGHT, WIDTH), value)
        assert temporal_knn_patch_loss(logits, matches, region).item() < 1e-8 * pairs
    logits[:, 0] = 20.0  # the others are at -20; two pairs contain the first frame
    loss = temporal_knn_patch_loss(logits, matches, region).item()
    assert loss == pytest.approx(2 * (20 - math.log(2)), rel=1e-5)


def test_temporal_normalisation():
    """All K matches of identical frames, logits 0: log 2 for each match."""
    colors = torch.ones(2, 3, HEIGHT, WIDTH)
    valid = torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool)
    matches = match_frames(colors, valid, TemporalSettings(radius=1, top_k=1, tube="all"))
    region = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    region[0, 2, 3:6] = True  # the second instance has no region
    logits = torch.zeros(2, 2, HEIGHT, WIDTH)
    loss = temporal_knn_patch_loss(logits, matches, region, "matches").item()
    assert loss == pytest.approx(math.log(2))
    loss = temporal_knn_patch_loss(logits, matches, region, "hw").item()
    assert loss == pytest.approx(3 * math.log(2) / (HEIGHT * WIDTH) / 2)


def test_temporal_of_one_frame_is_a_connected_zero():
    logits = torch.randn(2, 1, 1, HEIGHT, WIDTH, requires_grad=True)
    loss = temporal_knn_patch_loss(logits, [], torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool))
    loss.sum().backward()
    assert loss.tolist() == [0, 0] and (logits.grad == 0).all()


# ------------------------------------------------------------------------------ in general


def all_losses(logits, clip):
    return {
        "projection": projection_loss(logits, clip.boxes),
        "pairwise": pairwise_color_loss(logits, clip.edges, clip.boxes),
        "temporal": temporal_knn_patch_loss(logits, clip.matches, clip.boxes.union()),
        "temporal hw": temporal_knn_patch_loss(logits, clip.matches, clip.boxes.union(), "hw"),
    }


def test_leading_dimensions():
    clip = Clip()
    logits = clip.logits(2, 3)
    whole = all_losses(logits, clip)
    for name, single in all_losses(logits[1, 2], clip).items():
        assert single.shape == () and whole[name].shape == (2, 3)
        torch.testing.assert_close(single, whole[name][1, 2])


@pytest.mark.parametrize("frames", [1, 3])
def test_no_instances_are_a_connected_zero(frames):
    clip = Clip(instances=0, frames=frames)
    logits = clip.logits(2)
    for loss in all_losses(logits, clip).values():
        assert loss.tolist() == [0, 0]
        loss.sum().backward()


def test_extreme_logits_stay_finite():
    clip = Clip()
    logits = (clip.logits(2).detach() * 1e4).requires_grad_()
    for loss in all_losses(logits, clip).values():
        assert loss.isfinite().all()
        assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


def test_one_cell():
    boxes = clip_boxes(torch.tensor([[[0.0, 0, 4, 4]] * 2]), torch.ones(1, 2) > 0, (4, 4), 4)
    colors, valid = torch.zeros(2, 3, 1, 1), torch.ones(2, 1, 1, dtype=torch.bool)
    matches = match_frames(colors, valid, TemporalSettings())
    logits = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    loss = temporal_knn_patch_loss(logits, matches, boxes.union())
    assert loss.item() == pytest.approx(2 * math.log(2))
    edges = color_edges(colors, valid, PairwiseSettings())
    assert pairwise_color_loss(logits, edges, boxes).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    clip = Clip()
    half = clip.logits(2).detach().to(dtype).requires_grad_()
    expected = all_losses(half.detach().float(), clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = all_losses(half, clip)
    for name, loss in result.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name])
        assert torch.autograd.grad(loss.sum(), half)[0].dtype == dtype


def test_gradients_in_double_precision():
    clip = Clip(instances=2, frames=2)
    logits = clip.logits(1, dtype=torch.float64)
    for name in ("projection", "pairwise", "temporal"):
        assert torch.autograd.gradcheck(
            lambda x, n=name: all_losses(x, clip)[n], logits, fast_mode=True
        )


def test_clips_are_pooled():
    clips = [Clip(instances=2), Clip(instances=1)]
    logits = [clip.logits(2) for clip in clips]
    sums = [projection_sums(x, clip.boxes) for x, clip in zip(logits, clips)]
    expected = (sums[0][0] + sums[1][0]) / 12  # instance-frames
    torch.testing.assert_close(pool(sums), expected)
    sums = [
        temporal_knn_patch_sums(x, clip.matches, clip.boxes.union())
        for x, clip in zip(logits, clips)
    ]
    assert sums[0][0].shape == (2, 4) and sums[0][1].shape == (4,)
    (a, m), (b, n) = sums
    torch.testing.assert_close(pool(sums), ((a + b) / (m + n).clamp(min=1)).sum(1))


def test_clips_of_other_lengths_are_pooled():
    """A clip of one frame has no pairs of frames."""
    sums = [(torch.zeros(2, 0), torch.zeros(0)), (torch.tensor([[2.0, 6.0]] * 2), torch.ones(2))]
    assert pool(sums).tolist() == [8, 8]
    sums.append((torch.tensor([[4.0, 0.0]] * 2), torch.tensor([2.0, 2.0])))
    assert pool(sums).tolist() == [4, 4]


def test_unknown_options():
    clip = Clip()
    with pytest.raises(ValueError, match="ABSENT_FRAMES is 'ignore'"):
        projection_loss(clip.logits(), clip.boxes, "ignore")
    with pytest.raises(ValueError, match="NORMALISE is 'sum'"):
        temporal_knn_patch_loss(clip.logits(), clip.matches, clip.boxes.union(), "sum")
