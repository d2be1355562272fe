import pytest
import torch

from msr_d2.layers.precision import at_least_float32


def test_wide_numbers_stay_as_they_are():
    for dtype in (torch.float32, torch.float64):
        values = torch.tensor([1.0, float("inf"), 1e30], dtype=dtype)
        assert at_least_float32(values) is values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_finite(dtype):
    values = torch.tensor([1.5, -2.0, float("inf"), -float("inf")], dtype=dtype)
    result = at_least_float32(values)
    assert result.dtype == torch.float32 and result[:2].tolist() == [1.5, -2.0]
    assert result[2:].tolist() == pytest.approx([65504, -65504], rel=1e-3)
    assert at_least_float32(torch.tensor([float("nan")], dtype=dtype)).isnan().all()
