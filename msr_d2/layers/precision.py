"""Numbers of half precision in float32."""

from __future__ import annotations

import torch

_LARGEST = 65504.0  # of float16


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Values in float32, or in float64 if they are; what overflowed in float16 becomes finite.

    Under autocast a large logit may be infinite, and differences of infinities are not numbers.
    float32 and float64 stay as they are.
    """
    if torch.promote_types(values.dtype, torch.float32) == values.dtype:
        return values
    # Before the conversion, so that autograd saves nothing that is wider than the values.
    return values.clamp(-_LARGEST, _LARGEST).float()
