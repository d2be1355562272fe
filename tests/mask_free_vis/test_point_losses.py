import math

import pytest
import torch
from torch.nn import functional as F

from msr_d2.config import get_cfg
from msr_d2.mask_free_vis import point_losses
from msr_d2.mask_free_vis.point_losses import (
    PointSettings,
    mask_point_losses,
    point_sample,
    uncertain_points,
)

FEW = PointSettings(num_points=40)


def test_point_sample_by_hand():
    planes = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
    # centre of the first cell, centre of the plane, middle of the right cells, outer corner
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.5], [0.75, 0.5], [0.0, 0.0], [2.0, 2.0]]])
    expected = torch.tensor([1, 2.5, 3, 0.25, 0])
    torch.testing.assert_close(
        point_sample(planes, points), torch.stack([expected, 10 * expected])[None]
    )


def test_points_are_relative_at_any_resolution():
    x = torch.linspace(0, 1, 65)[:-1] + 1 / 128
    ramp = x.expand(1, 1, 64, 64)
    coarse = F.avg_pool2d(ramp, 8)
    points = 0.1 + 0.8 * torch.rand(1, 50, 2)
    torch.testing.assert_close(point_sample(ramp, points)[0, 0], points[0, :, 0])
    torch.testing.assert_close(point_sample(coarse, points)[0, 0], points[0, :, 0])


def test_points_are_where_the_mask_is_uncertain():
    torch.manual_seed(0)
    x = torch.arange(32) - 15.5  # undecided at 0.5
    logits = x.expand(3, 32, 32)
    points = uncertain_points(logits, PointSettings(400, oversample=4.0, importance=1.0))
    assert points.shape == (3, 400, 2)
    # the 400 closest of 1600: within an eighth of the middle, but for the border of the plane,
    # where the zeros outside are blended in
    assert ((points[..., 0] - 0.5).abs() < 0.135).float().mean() > 0.97
    # all rows are alike
    assert points[..., 1].std() == pytest.approx(12**-0.5, rel=0.1)


def test_the_rest_of_the_points_is_uniform():
    torch.manual_seed(0)
    logits = (torch.arange(32) - 15.5).expand(1, 32, 32)
    points = uncertain_points(logits, PointSettings(1000, oversample=10.0, importance=0.75))[0]
    near = (points[:, 0] - 0.5).abs() < 0.05
    assert near[:750].float().mean() > 0.95 and 0.05 < near[750:].float().mean() < 0.16
    assert points.min() >= 0 and points.max() <= 1
    uniform = uncertain_points(logits, PointSettings(1000, importance=0.0))[0]
    assert uniform.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.04)


def test_undecided_masks():
    logits, masks = torch.zeros(2, 3, 4, 8, 8), torch.ones(3, 4, 32, 32, dtype=torch.bool)
    # well inside of the frame only, where the interpolated truth is 1
    masks = F.pad(masks, (1, 1, 1, 1), value=True)
    bce, dice = mask_point_losses(logits, masks, torch.tensor(3.0), FEW)
    # the sum over 3 instances in 4 frames, divided by 3
    torch.testing.assert_close(bce, torch.full((2,), 4 * math.log(2)))
    assert dice.tolist() == pytest.approx([4 * (1 - 41 / 61)] * 2, abs=0.1)


def test_perfect_masks():
    torch.manual_seed(0)
    masks = (torch.rand(2, 3, 2, 2) > 0.5).repeat_interleave(8, 2).repeat_interleave(8, 3)
    logits = 200 * masks[None].float() - 100
    uniform = PointSettings(200, importance=0.0)
    bce, dice = mask_point_losses(logits, masks, 2.0, uniform)
    wrong_bce, wrong_dice = mask_point_losses(-logits, masks, 2.0, uniform)
    # what is left is at interpolated edges; the sum over 2 instances in 3 frames is divided by 2
    assert bce < wrong_bce / 10 and 200 < wrong_bce < 300
    assert dice < 0.2 and 2 < wrong_dice < 3


def test_equals_single_planes(monkeypatch):
    torch.manual_seed(0)
    outputs, instances, frames = 2, 3, 2
    logits = torch.randn(outputs, instances, frames, 6, 9)
    masks = torch.rand(instances, frames, 24, 36) > 0.5
    points = torch.rand(outputs * instances * frames, 17, 2)
    parts = iter(points.split(instances * frames))
    monkeypatch.setattr(point_losses, "uncertain_points", lambda *_: next(parts))
    bce, dice = mask_point_losses(logits, masks, 5.0, PointSettings(17))
    planes = points.view(outputs, instances, frames, 17, 2)
    for o in range(outputs):
        expected_bce = expected_dice = 0.0
        for n in range(instances):
            for t in range(frames):
                x = point_sample(logits[None, None, o, n, t], planes[None, o, n, t])[0, 0]
                y = point_sample(masks[None, None, n, t].float(), planes[None, o, n, t])[0, 0]
                expected_bce += F.binary_cross_entropy_with_logits(x, y) / 5
                p = x.sigmoid()
                expected_dice += (1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)) / 5
        torch.testing.assert_close(bce[o], expected_bce)
        torch.testing.assert_close(dice[o], expected_dice)


def test_one_output_at_a_time(monkeypatch):
    planes = []

    def seen(logits, settings):
        planes.append(len(logits))
        return uncertain_points(logits, settings)

    monkeypatch.setattr(point_losses, "uncertain_points", seen)
    logits, masks = torch.randn(4, 3, 2, 6, 9), torch.rand(3, 2, 24, 36) > 0.5
    bce, _ = mask_point_losses(logits, masks, 1.0, FEW)
    assert planes == [6] * 4 and len(bce) == 4


def test_overflow_in_half_precision_stays_finite():
    logits = torch.randn(2, 2, 2, 8, 8).half()
    logits[0, 0, 0, :4], logits[1, 1, 1, :, :3] = float("inf"), -float("inf")
    logits.requires_grad_()
    losses = mask_point_losses(logits, torch.rand(2, 2, 32, 32) > 0.5, 2.0, FEW)
    sum(losses).sum().backward()
    assert all(torch.isfinite(loss).all() for loss in losses)
    assert torch.isfinite(logits.grad).all() and logits.grad.any()


def test_no_instance_is_a_connected_zero():
    logits = torch.zeros(3, 0, 2, 8, 8, requires_grad=True)
    masks = torch.zeros(0, 2, 32, 32, dtype=torch.bool)
    bce, dice = mask_point_losses(logits, masks, 1.0, FEW)
    assert bce.tolist() == dice.tolist() == [0, 0, 0]
    (bce + dice).sum().backward()
    assert logits.grad is not None


def test_gradient_reduces_the_loss():
    torch.manual_seed(0)
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    masks[..., 8:24, 8:24] = True
    logits = torch.zeros(1, 1, 1, 8, 8, requires_grad=True)
    sum(mask_point_losses(logits, masks, 1.0, PointSettings(500))).sum().backward()
    inside = F.avg_pool2d(masks.float(), 4)[None] == 1
    assert (logits.grad[inside] < 0).all() and (logits.grad[~inside] >= 0).float().mean() > 0.6


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(1, 2, 2, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mask_point_losses(logits, torch.rand(2, 2, 32, 32) > 0.5, 2.0, FEW)
    assert all(loss.dtype == torch.float32 for loss in losses)


def test_settings():
    former = get_cfg().MODEL.MASK_FORMER
    assert PointSettings.from_config(former) == PointSettings(12544, 3.0, 0.75)
    with pytest.raises(ValueError, match="TRAIN_NUM_POINTS is 0"):
        PointSettings(0)
    with pytest.raises(ValueError, match="OVERSAMPLE_RATIO is 0.5"):
        PointSettings(10, oversample=0.5)
    with pytest.raises(ValueError, match="IMPORTANCE_SAMPLE_RATIO is 1.5"):
        PointSettings(10, importance=1.5)
