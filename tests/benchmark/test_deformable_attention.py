import torch

from msr_d2.benchmark.deformable_attention import HEADER, make_inputs, rows
from msr_d2.benchmark.deformable_attention_reference import stacked_deformable_attention
from msr_d2.layers.deformable_attention import multi_scale_deformable_attention


def test_rows():
    table = rows(frames=(1, 2), repeats=1, size=(64, 96), channels=64, heads=4)
    assert [len(row) for row in table] == [len(HEADER)] * 2
    assert table[1][0] == "2 frames of 64x96, 4 heads, 64 channels"
    assert float(table[1][6]) > 2  # saved memory does not depend on the machine


def test_both_ways_have_the_same_gradients():
    inputs = make_inputs(2, size=(64, 96), channels=64, heads=4)
    assert inputs.locations.min() < 0 and inputs.locations.max() > 1
    expected = inputs.step(stacked_deformable_attention)
    for x, y in zip(inputs.step(multi_scale_deformable_attention), expected):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)
