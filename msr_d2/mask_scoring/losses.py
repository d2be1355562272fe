"""The loss of the MaskIoU head (arXiv 1903.00241, Sec. 3.3)."""

from __future__ import annotations

import torch


def mask_iou_loss(
    prediction: torch.Tensor, target: torch.Tensor, selected: torch.Tensor | None = None
) -> torch.Tensor:
    """Half the mean squared error of the predicted MaskIoU over the selected entries.

    Args:
        prediction: predicted MaskIoU, any shape, for example (N,) with N RoIs.
        target: MaskIoU of the same shape, no gradient flows into it.
        selected: boolean tensor of the same shape, the entries that count. By default those with
            ``target > 0``, which also leaves out a target that is not a number.

    Returns:
        A scalar in float32. Zero, but connected to ``prediction``, when nothing is selected.
    """
    if selected is None:
        selected = target > 0
    prediction, target = prediction.float(), target.float().detach()
    count = selected.sum().clamp(min=1)
    # `where` and not a product, so that a target that is not a number leaves no trace.
    error = torch.where(selected, prediction - target, torch.zeros_like(prediction))
    return 0.5 * error.square().sum() / count
