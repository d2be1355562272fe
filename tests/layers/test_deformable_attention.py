import math

import pytest
import torch

from msr_d2.benchmark.box_losses import saved_mebibytes
from msr_d2.benchmark.deformable_attention import make_inputs
from msr_d2.benchmark.deformable_attention_reference import stacked_deformable_attention
from msr_d2.layers import deformable_attention as module
from msr_d2.layers.deformable_attention import MSDeformAttn, multi_scale_deformable_attention

SHAPES = [(3, 5), (6, 10), (1, 1)]


def random_inputs(frames=3, queries=7, heads=2, channels=4, points=2, dtype=torch.float64):
    """Locations reach far outside of the maps."""
    generator = torch.Generator().manual_seed(0)
    samples = (frames, queries, heads, len(SHAPES), points)
    cells = sum(height * width for height, width in SHAPES)
    value = torch.randn(frames, cells, heads, channels, dtype=dtype, generator=generator)
    locations = torch.rand(*samples, 2, dtype=dtype, generator=generator) * 2 - 0.5
    weights = torch.randn(samples, dtype=dtype, generator=generator)
    return [x.requires_grad_() for x in (value, locations, weights)]


def gradients(function, value, locations, weights, **kwargs):
    output = function(value, SHAPES, locations, weights, **kwargs)
    factors = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    loss = (output * factors.to(output.dtype)).sum()
    return [output, *torch.autograd.grad(loss, (value, locations, weights))]


@pytest.mark.parametrize("frames_per_step", [0, 1, 2, 3, 50])
def test_equals_stacked_samples(frames_per_step):
    inputs = random_inputs()
    expected = gradients(stacked_deformable_attention, *inputs)
    found = gradients(multi_scale_deformable_attention, *inputs, frames_per_step=frames_per_step)
    for x, y in zip(found, expected):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_gradients_numerically():
    value, locations, weights = random_inputs(frames=1, queries=2, points=1)
    assert torch.autograd.gradcheck(
        lambda *x: multi_scale_deformable_attention(x[0], SHAPES, x[1], x[2]),
        (value, locations, weights),
    )


def test_gradient_of_some_inputs_only():
    value, locations, weights = random_inputs()
    expected = gradients(stacked_deformable_attention, value, locations, weights)[3]
    output = multi_scale_deformable_attention(value.detach(), SHAPES, locations.detach(), weights)
    factors = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * factors).sum().backward()
    torch.testing.assert_close(weights.grad, expected)
    assert value.grad is None and locations.grad is None


def test_one_sample_by_hand():
    """Cells 0 1 / 2 3, sampled in the middle, on a cell, half a cell outside, and far outside."""
    value = torch.arange(4.0).view(1, 4, 1, 1)
    locations = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.0, 0.75], [-9.0, 0.5]])
    weights = torch.ones(1, 4, 1, 1, 1)
    found = multi_scale_deformable_attention(
        value, [(2, 2)], locations.view(1, 4, 1, 1, 1, 2), weights
    )
    # Half of the cell with value 2 in the third: the other half is zero outside.
    torch.testing.assert_close(found.flatten(), torch.tensor([1.5, 1.0, 1.0, 0.0]))


def test_frames_at_once_follow_the_number_of_samples(monkeypatch):
    value, locations, weights = random_inputs(frames=5)
    whole = multi_scale_deformable_attention(value, SHAPES, locations, weights)
    monkeypatch.setattr(module, "_CPU_SAMPLES", 2 * weights[0].numel())
    steps, seen = module._steps, []
    monkeypatch.setattr(module, "_steps", lambda *a: seen.append(a[1]) or steps(*a))
    parts = multi_scale_deformable_attention(value, SHAPES, locations, weights)
    assert seen == [2]
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


def test_values_that_are_not_finite_stay_in_bounds():
    value, locations, weights = random_inputs()
    bad = locations.detach().clone()
    bad[0, 0, 0, 0, 0, 0], bad[0, 1, 0, 0, 0, 1] = math.nan, math.inf
    output = multi_scale_deformable_attention(value, SHAPES, bad, weights)
    assert output[0, :2].isnan().any() and output[0, 2:].isfinite().all()
    assert output[1:].isfinite().all()


def test_no_frames_and_no_queries():
    value, locations, weights = random_inputs()
    none = multi_scale_deformable_attention(value[:0], SHAPES, locations[:0], weights[:0])
    assert none.shape == (0, 7, 8)
    empty = multi_scale_deformable_attention(value, SHAPES, locations[:, :0], weights[:, :0])
    assert empty.shape == (3, 0, 8)
    assert torch.autograd.grad(empty.sum(), value)[0].count_nonzero() == 0


def test_half_precision_is_computed_in_float32():
    value, locations, weights = (x.detach().float() for x in random_inputs())
    expected = multi_scale_deformable_attention(value.bfloat16(), SHAPES, locations, weights)
    wide = multi_scale_deformable_attention(value.bfloat16().float(), SHAPES, locations, weights)
    assert expected.dtype == torch.bfloat16
    torch.testing.assert_close(expected, wide.bfloat16(), rtol=0, atol=0)


def test_saves_its_inputs_only():
    inputs = make_inputs(frames=2, size=(64, 96), channels=64, heads=4)
    saved = saved_mebibytes(lambda: multi_scale_deformable_attention(*inputs.arguments))
    leaves = (inputs.value, inputs.locations, inputs.weights)
    assert saved * 2**20 == sum(x.untyped_storage().nbytes() for x in leaves)
    stacked = saved_mebibytes(lambda: stacked_deformable_attention(*inputs.arguments))
    assert saved < stacked / 3


@pytest.mark.parametrize(
    "change",
    [
        lambda v, x, w: (v[:, :-1], x, w),
        lambda v, x, w: (v[:2], x, w),
        lambda v, x, w: (v, x[:, :-1], w),
        lambda v, x, w: (v, x, w[..., :1]),
        lambda v, x, w: (v, x[:, :, :, :2], w[:, :, :, :2]),
        lambda v, x, w: (v, x, w.flatten(3)),
        lambda v, x, w: (v, x[..., :1], w),
    ],
)
def test_shapes_that_contradict_each_other(change):
    value, locations, weights = change(*random_inputs())
    with pytest.raises(ValueError, match="deformable attention|cells"):
        multi_scale_deformable_attention(value, SHAPES, locations, weights)


def test_module_starts_by_looking_around_the_reference():
    """With 4 heads: right, down, left, up; point p at distance p + 1; all with equal weight."""
    module = MSDeformAttn(16, n_levels=1, n_heads=4, n_points=2)
    offsets = module.sampling_offsets(torch.randn(1, 16)).view(4, 2, 2)
    directions = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    expected = torch.stack([directions, 2 * directions], dim=1)
    torch.testing.assert_close(offsets, expected, rtol=0, atol=1e-6)
    diagonal = MSDeformAttn(16, n_levels=3, n_heads=8, n_points=4).sampling_offsets.bias
    torch.testing.assert_close(diagonal.view(8, 3, 4, 2)[1, 2, 3], torch.tensor([4.0, 4.0]))


def test_module_samples_values():
    """A value projection of identity: the mean of the cells one step away, on a map of x."""
    module = MSDeformAttn(4, n_levels=1, n_heads=4, n_points=1)
    with torch.no_grad():
        for linear in (module.value_proj, module.output_proj):
            linear.weight.copy_(torch.eye(4))
    x = torch.arange(5.0).repeat(5)[None, :, None].expand(-1, -1, 4)
    reference = torch.tensor([[0.5, 0.5]])
    found = module(torch.zeros(1, 1, 4), reference, x, [(5, 5)])
    torch.testing.assert_close(found.flatten(), torch.tensor([3.0, 2.0, 1.0, 2.0]))


def test_module_parameters():
    shapes = {name: tuple(p.shape) for name, p in MSDeformAttn().named_parameters()}
    assert shapes == {
        "sampling_offsets.weight": (192, 256),
        "sampling_offsets.bias": (192,),
        "attention_weights.weight": (96, 256),
        "attention_weights.bias": (96,),
        "value_proj.weight": (256, 256),
        "value_proj.bias": (256,),
        "output_proj.weight": (256, 256),
        "output_proj.bias": (256,),
    }
    with pytest.raises(ValueError, match="30 channels among 8 heads"):
        MSDeformAttn(30)


@pytest.mark.gpu
def test_gpu_equals_cpu_and_repeats_itself():
    inputs = random_inputs(dtype=torch.float32)
    expected = gradients(multi_scale_deformable_attention, *inputs)
    on_gpu = [x.detach().cuda().requires_grad_() for x in inputs]

    def run():
        output = multi_scale_deformable_attention(on_gpu[0], SHAPES, *on_gpu[1:])
        factors = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).cuda()
        return [output, *torch.autograd.grad((output * factors).sum(), on_gpu)]

    first, second = run(), run()
    for x, y, z in zip(first, second, expected):
        assert torch.equal(x, y)
        torch.testing.assert_close(x.cpu(), z, rtol=1e-4, atol=1e-5)
