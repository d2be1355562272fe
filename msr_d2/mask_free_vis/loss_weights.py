"""Which losses there are, how much each counts, and how they grow at the start of a training."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from .box_settings import check_choice

BOX_LOSSES = ("loss_mask_proj", "loss_bound", "loss_bound_neighbor")
MASK_LOSSES = ("loss_mask", "loss_dice")


def loss_weights(cfg: CfgNode) -> dict[str, float]:
    """The weight of each loss that the config's training data sets can have, by key.

    Raises:
        ValueError: for an unknown kind of supervision.
    """
    former, free = cfg.MODEL.MASK_FORMER, cfg.MODEL.MASK_FREE
    kinds = _supervisions(cfg)
    weights = {"loss_ce": former.CLASS_WEIGHT}
    if "box" in kinds:
        factors = (free.LAMBDA_PROJ, free.LAMBDA_PAIR, free.LAMBDA_TEMP)
        weights.update({k: free.BOX_WEIGHT * factor for k, factor in zip(BOX_LOSSES, factors)})
    if "mask" in kinds:
        weights.update(zip(MASK_LOSSES, (former.MASK_WEIGHT, former.DICE_WEIGHT)))
    return weights


def warmup_factors(
    iteration: int, warmup: int, outputs: int, per_output: bool = False
) -> list[float]:
    """Factor in (0, 1] on a loss of each output, the final output last.

    Args:
        iteration: from 0.
        warmup: steps until the factor is 1.
        outputs: L.
        per_output: count a step for each output instead of for each iteration. The official code
            does, and starts with the final output.
    """
    if not per_output:
        return [min((iteration + 1) / warmup, 1.0)] * outputs
    order = [*range(2, outputs + 1), 1]
    return [min((iteration * outputs + step) / warmup, 1.0) for step in order]


def mean_num_masks(count: int, device: torch.device) -> torch.Tensor:
    """Number of instances with masks, averaged over the processes, at least 1.

    All processes must call equally often.

    Args:
        count: of this process.
        device: where the processes talk, and of the result.
    """
    total = torch.tensor(float(count), device=device)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return (total / comm.get_world_size()).clamp(min=1)


def _supervisions(cfg: CfgNode) -> set[str]:
    free = cfg.MODEL.MASK_FREE
    exceptions = {name: kind for name, kind in free.DATASET_SUPERVISION}
    names = cfg.DATASETS.TRAIN or ("",)
    kinds = {exceptions.get(name, free.SUPERVISION) for name in names}
    for kind in kinds:
        check_choice("MODEL.MASK_FREE.SUPERVISION (or DATASET_SUPERVISION)", kind, ("box", "mask"))
    return kinds
