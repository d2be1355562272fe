"""Statistics of two samples."""

from __future__ import annotations

import torch


def pearson_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Pearson's correlation coefficient of two samples.

    Args:
        first: tensor of shape (N,).
        second: tensor of shape (N,).

    Returns:
        A number in [-1, 1], or NaN where it is undefined: fewer than two pairs, or a constant
        sample.
    """
    first = first.double() - first.double().mean()
    second = second.double() - second.double().mean()
    scale = (first.square().sum() * second.square().sum()).sqrt()
    if first.numel() < 2 or not scale > 0:
        return float("nan")
    return float(((first * second).sum() / scale).clamp(-1, 1))
