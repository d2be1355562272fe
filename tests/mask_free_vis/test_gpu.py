"""What only a GPU can show: its ways through the operators give the values of the CPU, each time.

"Each time" is meant bit for bit: none of these operators may add in an order that changes.
"""

import math

import pytest
import torch
from detectron2.utils.events import EventStorage

from msr_d2.layers.deformable_attention import multi_scale_deformable_attention
from msr_d2.layers.mask_consistency import PairMatches, matched_consistency, shifted_consistency
from msr_d2.layers.patch_matching import nearest_patches, window_offsets
from msr_d2.mask_free_vis.affinities import match_frames
from msr_d2.mask_free_vis.box_settings import TemporalSettings
from msr_d2.mask_free_vis.clips import TargetSettings, clip_targets
from msr_d2.mask_free_vis.criterion import VideoSetCriterion
from msr_d2.testing import tiny_clips, tiny_vis_cfg

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def moved(value):
    """Tensors, also in tuples and lists, on the GPU."""
    if isinstance(value, PairMatches):
        return PairMatches(*(moved(field) for field in value))
    if isinstance(value, (list, tuple)):
        return type(value)(moved(item) for item in value)
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


def with_gradients(function, inputs, rest):
    """The output of `function`, and the gradients of its inputs for fixed factors."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*inputs, *rest)
    factors = torch.linspace(0.5, 1.5, output.numel()).view(output.shape).to(output)
    return [output.detach(), *torch.autograd.grad((output * factors).sum(), inputs)]


def assert_like_the_cpu_and_repeatable(function, inputs, rest, rtol=1e-4, atol=1e-4):
    expected = with_gradients(function, inputs, rest)
    inputs, rest = moved(inputs), moved(rest)
    found = with_gradients(function, inputs, rest)
    for ours, theirs in zip(found, expected):
        assert ours.is_cuda == (DEVICE == "cuda") and theirs.any()
        torch.testing.assert_close(ours.cpu(), theirs, rtol=rtol, atol=atol)
    again = with_gradients(function, inputs, rest)
    assert all(torch.equal(x, y) for x, y in zip(found, again))


# ------------------------------------------------------------------------------ matches


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("black", [False, True])
@pytest.mark.parametrize("offsets", [window_offsets(5), window_offsets(1, 3)], ids=["dense", "9"])
def test_nearest_patches(offsets, black, metric):
    # Whole numbers: sums are exact, and so equal distances are equal on both devices.
    first, second = torch.randint(0, 9, (2, 3, 3, 45, 70)).float()
    usable = torch.rand(3, 45, 70) > 0.1
    usable[:, 35:] = False
    settings = (3, 5, metric, black)
    expected = nearest_patches(first, second, offsets, usable, *settings)
    inputs = first.to(DEVICE), second.to(DEVICE), offsets, usable.to(DEVICE)
    distance, index = nearest_patches(*inputs, *settings)
    torch.testing.assert_close(distance.cpu(), expected[0])
    assert torch.equal(index.cpu(), expected[1]) and (index == -1).any() and (index >= 0).any()
    again = nearest_patches(*inputs, *settings)
    assert torch.equal(distance, again[0]) and torch.equal(index, again[1])


@pytest.mark.parametrize("tube", ["cyclic", "all", "dense"])
def test_matches_of_a_clip(tube):
    colors = torch.randint(0, 4, (3, 3, 20, 30)).float()
    valid = torch.ones(3, 20, 30, dtype=torch.bool)
    valid[1, 15:] = False
    # Whole numbers again, which this threshold does not divide; 8.28^2 lies between two of them.
    settings = TemporalSettings(
        radius=3, threshold="similarity", similarity=math.exp(-8.28 / 2), tube=tube
    )
    expected = match_frames(colors, valid, settings)
    found = match_frames(colors.to(DEVICE), valid.to(DEVICE), settings)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert (ours.first, ours.second) == (theirs.first, theirs.second)
        assert torch.equal(ours.valid.cpu(), theirs.valid) and theirs.valid.any()
        assert torch.equal(ours.index.cpu(), theirs.index)


# -------------------------------------------------------------------------- consistency


def random_logits(outputs=3, instances=4, frames=3, height=45, width=70):
    return torch.randn(outputs, instances, frames, height, width) * 3


@pytest.mark.parametrize("size, dilation", [(3, 2), (5, 1)])
def test_shifted_consistency(size, dilation):
    logits = random_logits()
    _, instances, frames, height, width = logits.shape
    edges = torch.rand(frames, size**2 - 1, height, width) > 0.4
    rows = torch.randint(0, 3, (instances, frames, height)) / 2
    columns = torch.randint(0, 3, (instances, frames, width)) / 2
    rest = (edges, rows, columns, size, dilation)
    assert_like_the_cpu_and_repeatable(shifted_consistency, [logits], rest)


@pytest.mark.parametrize("missing", [0.0, 0.9])
def test_matched_consistency(missing):
    """Many matches have no cell, and many of the others have the same."""
    logits = random_logits()
    size = logits.shape[-2:]
    matches = []
    for pair in ((0, 1), (1, 2), (2, 0)):
        index = torch.randint(0, size.numel() // 8, (5, *size))
        index[torch.rand(index.shape) < missing] = -1
        matches.append(PairMatches(*pair, index, torch.rand(index.shape) > 0.3))
    region = torch.zeros(len(logits[0]), *size, dtype=torch.bool)
    region[:2, 5:30, 10:60], region[2:, 20:, :40] = True, True
    assert_like_the_cpu_and_repeatable(matched_consistency, [logits], (matches, region))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_consistency_of_half_precision_is_finite(dtype):
    logits = (random_logits(height=20, width=30) * 1e5).to(dtype).to(DEVICE).requires_grad_()
    edges = torch.ones(3, 8, 20, 30, dtype=torch.bool, device=DEVICE)
    profiles = [torch.ones(4, 3, length, device=DEVICE) for length in (20, 30)]
    index = torch.randint(-1, 600, (5, 20, 30), device=DEVICE)
    region = torch.ones(4, 20, 30, dtype=torch.bool, device=DEVICE)
    losses = [
        shifted_consistency(logits, edges, *profiles, 3, 2),
        matched_consistency(logits, [PairMatches(0, 1, index, index >= 0)], region),
    ]
    for loss in losses:
        gradient = torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0]
        assert torch.isfinite(loss).all() and (loss > 0).all()
        assert torch.isfinite(gradient).all() and gradient.any()


# ------------------------------------------------------------------ deformable attention


@pytest.mark.parametrize("frames_per_step", [0, 2])
def test_deformable_attention(frames_per_step):
    shapes = [(4, 6), (8, 12), (16, 24)]
    cells = sum(height * width for height, width in shapes)
    value = torch.randn(3, cells, 8, 16)
    locations = torch.rand(3, cells, 8, 3, 4, 2) * 1.4 - 0.2
    weights = torch.rand(3, cells, 8, 3, 4)

    def attend(value, locations, weights):
        return multi_scale_deformable_attention(value, shapes, locations, weights, frames_per_step)

    # The slope by a location jumps where samples lie on the centre of a cell, up to rounding.
    inputs = [value, locations, weights]
    assert_like_the_cpu_and_repeatable(attend, inputs, (), rtol=1e-3, atol=2e-3)


# ------------------------------------------------------------------------------- losses


def losses_of(supervision, dtype, scale):
    """Losses and mask logits of random predictions for two clips; logits are about `scale`."""
    opts = ["MODEL.MASK_FREE.SUPERVISION", supervision, "MODEL.MASK_FREE.TEMPORAL.WARMUP_ITERS", 0]
    cfg = tiny_vis_cfg(opts)
    settings, items = TargetSettings.from_config(cfg), tiny_clips(supervision)
    targets = [
        clip_targets(item, torch.stack(list(item["image"])).to(DEVICE), settings) for item in items
    ]
    criterion = VideoSetCriterion(cfg).to(DEVICE)
    queries = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    frames, size = len(items[0]["image"]), items[0]["image"][0].shape[-2:]
    masks = torch.randn(2, frames, queries, size[0] // 4, size[1] // 4) * scale
    masks = masks.to(DEVICE, dtype).requires_grad_()
    classes = torch.randn(2, queries, 4).to(DEVICE, dtype).requires_grad_()
    with EventStorage(), torch.autocast(DEVICE, dtype=dtype, enabled=dtype != torch.float32):
        outputs = {"pred_logits": classes, "pred_masks": masks.transpose(1, 2)}
        return criterion(outputs, targets), masks


@pytest.mark.parametrize("scale", [4.0, 1e5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_losses_of_half_precision_are_finite(supervision, dtype, scale):
    losses, masks = losses_of(supervision, dtype, scale)
    assert masks.isinf().any() == (scale == 1e5 and dtype == torch.float16)
    for loss in losses.values():
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
    sum(losses.values()).backward()
    assert torch.isfinite(masks.grad).all() and masks.grad.any()


def test_box_losses_repeat_bit_for_bit():
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        losses, masks = losses_of("box", torch.float32, 4.0)
        sum(losses.values()).backward()
        results.append([*losses.values(), masks.grad])
    assert all(torch.equal(x, y) for x, y in zip(*results))
