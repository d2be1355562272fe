"""Losses that train masks from boxes (arXiv 2303.15904): projection, pairwise colour, TK-loss.

Pure functions of logits and of targets that are made once per clip. Leading dimensions ``...`` are
the L supervised outputs. Each loss comes as a pair of sums as well, so that the clips of a batch
can be pooled (:func:`pool`). All compute in float32 at least, also under autocast, where logits of
half precision may be infinite and are saved as they are. They are zero but connected to the logits
where there is nothing to train.

Letters: L supervised outputs, N instances, T frames, h x w mask grid, E colour neighbours, M pairs
of frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..layers.mask_consistency import PairMatches, matched_consistency, shifted_consistency
from ..layers.precision import at_least_float32
from .box_settings import NORMALISERS, check_choice
from .filled_boxes import ClipBoxes

ABSENT_FRAMES = ("suppress", "none", "official")


def projection_loss(
    logits: torch.Tensor, boxes: ClipBoxes, absent: str = "suppress"
) -> torch.Tensor:
    """How well the projections of the masks onto both axes agree with the boxes (Eq. 5).

    Per instance and frame: 1 - dice of the maximum over each column with the box along x, plus the
    same along y, so 0..2. The mean over instances and frames is taken (the paper: the sum over
    frames). The gradient reaches only the largest logit of each row and column (of equal ones, the
    first).

    Args:
        logits: (..., N, T, h, w) mask logits.
        boxes: boxes of the N instances.
        absent: what counts in frames without the instance. "suppress": the mean probability of the
            projections, which pushes the mask down; "none": such frames are left out of the mean;
            "official": 2, without any gradient.

    Returns:
        (...).

    Raises:
        ValueError: for another `absent`.
    """
    return pool([projection_sums(logits, boxes, absent)])


def projection_sums(
    logits: torch.Tensor, boxes: ClipBoxes, absent: str = "suppress"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum (...) of :func:`projection_loss` over instances and frames, and their number ()."""
    check_choice("MODEL.MASK_FREE.ABSENT_FRAMES", absent, ABSENT_FRAMES)
    with torch.autocast(logits.device.type, enabled=False):
        x, y = (at_least_float32(logits.max(dim).values).sigmoid() for dim in (-2, -1))
        loss = _dice_loss(x, boxes.x_profile) + _dice_loss(y, boxes.y_profile)
        counted = torch.ones_like(boxes.present)
        if absent == "suppress":
            loss = torch.where(boxes.present, loss, x.mean(-1) + y.mean(-1))
        elif absent == "none":
            loss, counted = loss * boxes.present, boxes.present
        return loss.sum((-2, -1)), counted.sum().to(loss.dtype)


def pairwise_color_loss(
    logits: torch.Tensor, edges: torch.Tensor, boxes: ClipBoxes, dilation: int = 2, size: int = 3
) -> torch.Tensor:
    """Neighbours of similar colour should get the same label (Eq. 6 and 7).

    The mean of -log P(same label) over the edges within each frame whose cell lies in the box of
    that frame, weighted with the filled box. Each edge is counted from both ends.

    Args:
        logits: (..., N, T, h, w) mask logits.
        edges: (T, E, h, w) bool, from :func:`msr_d2.mask_free_vis.affinities.clip_affinities`.
        boxes: boxes of the N instances.
        dilation: distance of adjacent neighbours in cells, as when the edges were made.
        size: neighbourhood in cells, as when the edges were made: E = size^2 - 1.

    Returns:
        (...).
    """
    return pool([pairwise_color_sums(logits, edges, boxes, dilation, size)])


def pairwise_color_sums(
    logits: torch.Tensor, edges: torch.Tensor, boxes: ClipBoxes, dilation: int = 2, size: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum (...) of :func:`pairwise_color_loss` over the edges, and total weight ()."""
    with torch.autocast(logits.device.type, enabled=False):
        wide = torch.promote_types(logits.dtype, torch.float32)
        profiles = boxes.y_profile.to(wide), boxes.x_profile.to(wide)
        total = shifted_consistency(_outputs_first(logits), edges, *profiles, size, dilation)
        weight = (boxes.filled() * edges.sum(1)).sum()
    return total.view(logits.shape[:-4]), weight


def temporal_knn_patch_loss(
    logits: torch.Tensor,
    matches: Sequence[PairMatches],
    region: torch.Tensor,
    normalise: str = "matches",
) -> torch.Tensor:
    """Matched patches of different frames should get the same label (TK-loss, Eq. 2 to 4).

    The sum over pairs of frames of the mean of -log P(same label) over the matches whose centre, in
    the second frame, lies in the region of the instance.

    Args:
        logits: (..., N, T, h, w) mask logits.
        matches: M pairs of frames, from :func:`msr_d2.mask_free_vis.affinities.clip_affinities`.
        region: (N, h, w) bool, officially the union of the boxes of all frames.
        normalise: "matches" (official): the mean is taken over the matches of all instances; "hw"
            (Eq. 2): the sum of an instance is divided by h w, and the mean over instances is taken.

    Returns:
        (...). Zero for a single frame.

    Raises:
        ValueError: for another `normalise`.
    """
    return pool([temporal_knn_patch_sums(logits, matches, region, normalise)])


def temporal_knn_patch_sums(
    logits: torch.Tensor,
    matches: Sequence[PairMatches],
    region: torch.Tensor,
    normalise: str = "matches",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums (..., M) of :func:`temporal_knn_patch_loss` for each pair, and divisors (M,)."""
    check_choice("MODEL.MASK_FREE.TEMPORAL.NORMALISE", normalise, NORMALISERS)
    with torch.autocast(logits.device.type, enabled=False):
        sums = matched_consistency(_outputs_first(logits), matches, region)
        sums = sums.view(*logits.shape[:-4], len(matches))
        if normalise == "hw":
            return sums / region.shape[-2:].numel(), sums.new_full((len(matches),), len(region))
        counts = [(pair.valid.sum(0) * region).sum() for pair in matches]
        return sums, torch.stack(counts).to(sums.dtype) if counts else sums.new_zeros(0)


def pool(sums: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The loss of a batch from the sums of its clips: sum of numerators over sum of divisors.

    Args:
        sums: what one of the ``*_sums`` functions gave for each clip: (...) and (), or (..., M) and
            (M,). The latter are divided per pair of frames, as officially, and added up; M may
            differ between clips.

    Returns:
        (...).
    """
    per_pair = sums[0][1].dim() == 1
    if per_pair:
        most = max(len(divisor) for _, divisor in sums)
        sums = [(_padded(numerator, most), _padded(divisor, most)) for numerator, divisor in sums]
    numerator = torch.stack([numerator for numerator, _ in sums]).sum(0)
    divisor = torch.stack([divisor for _, divisor in sums]).sum(0)
    loss = numerator / divisor.clamp(min=1)
    return loss.sum(-1) if per_pair else loss


def _padded(values: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - values.shape[-1]))


def _dice_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - dice with squared terms in the denominator, along the last dimension."""
    overlap = (prediction * target).sum(-1)
    total = prediction.square().sum(-1) + target.square().sum(-1)
    return 1 - 2 * overlap / (total + 1e-5)


def _outputs_first(logits: torch.Tensor) -> torch.Tensor:
    """(L, N, T, h, w) from (..., N, T, h, w), with any number of leading dimensions."""
    outputs = math.prod(logits.shape[:-4])
    return logits.reshape(outputs, *logits.shape[-4:])
