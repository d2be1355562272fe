"""Statistics of two samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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


def mean_per_bin(
    position: Sequence[float], value: Sequence[float], edges: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean value of the pairs whose position lies in each bin.

    Args:
        position: (N,).
        value: (N,).
        edges: B + 1 ascending bin edges. A bin contains its lower edge; the last bin contains its
            upper edge as well.

    Returns:
        The means (B,), NaN for an empty bin, and the counts (B,).
    """
    position, value, edges = (np.asarray(x, dtype=np.float64) for x in (position, value, edges))
    bin_of = np.searchsorted(edges, position, side="right") - 1
    bin_of[position == edges[-1]] = len(edges) - 2
    inside = (bin_of >= 0) & (bin_of < len(edges) - 1)
    count = np.bincount(bin_of[inside], minlength=len(edges) - 1)
    total = np.bincount(bin_of[inside], value[inside], minlength=len(edges) - 1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), count
