"""Which query is trained on which instance: bipartite matching for all outputs at once.

Clips with boxes are matched by the class and by the dice of box tubes (paper, Sec. 3.4), clips
with masks by the class and by cross-entropy and dice of the masks at random points
(arXiv 2112.10764). The dice of two boxes has a closed form, so no box is drawn and no point is
sampled; the costs of all outputs and clips reach the CPU in one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from .filled_boxes import ClipBoxes
from .point_losses import point_sample
from .targets import ClipTargets

# What a cost becomes that is not finite: such a query is taken only when nothing else is left.
_WORST_COST = 1e6


@dataclass(frozen=True)
class MatchSettings:
    """Weights of the costs.

    Attributes:
        class_weight: of the probability of the class.
        box_weight: of the dice of boxes; clips with boxes.
        mask_weight: of the cross-entropy at points; clips with masks.
        dice_weight: of the dice at points; clips with masks.
        num_points: random points of a frame for masks; for boxes it sets the weight of the
            "+ 1" of the dice only.
    """

    class_weight: float = 2.0
    box_weight: float = 5.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    num_points: int = 112 * 112

    @classmethod
    def from_config(cls, cfg: CfgNode) -> MatchSettings:
        """From ``cfg.MODEL``: ``MASK_FORMER`` and ``MASK_FREE.BOX_COST_WEIGHT``."""
        former = cfg.MODEL.MASK_FORMER
        return cls(
            class_weight=former.CLASS_WEIGHT,
            box_weight=cfg.MODEL.MASK_FREE.BOX_COST_WEIGHT,
            mask_weight=former.MASK_WEIGHT,
            dice_weight=former.DICE_WEIGHT,
            num_points=former.TRAIN_NUM_POINTS,
        )


@torch.no_grad()
def match(
    class_logits: torch.Tensor | Sequence[torch.Tensor],
    mask_logits: torch.Tensor | Sequence[torch.Tensor],
    targets: Sequence[ClipTargets],
    settings: MatchSettings,
) -> list[torch.Tensor]:
    """The query of each instance, at each output.

    The host waits for the device once. A cost that is not a number, or infinite, counts as very
    large instead of stopping the training.

    Args:
        class_logits: L times (B, Q, K + 1), the last class is "no object".
        mask_logits: L times (B, Q, T, h, w).
        targets: of the B clips, with N_b <= Q instances each.

    Returns:
        For each clip (L, N_b) int64 on the CPU: the query of instance n at output l.
    """
    device_type = mask_logits[0].device.type
    with torch.autocast(device_type, enabled=False):
        costs = [
            _clip_cost([c[b] for c in class_logits], [m[b] for m in mask_logits], target, settings)
            for b, target in enumerate(targets)
        ]
        flat = torch.cat([cost.flatten() for cost in costs]).cpu()
    sizes = [cost.numel() for cost in costs]
    return [_assign(part.view(cost.shape)) for part, cost in zip(flat.split(sizes), costs)]


def _clip_cost(
    class_logits: list[torch.Tensor],
    mask_logits: list[torch.Tensor],
    target: ClipTargets,
    settings: MatchSettings,
) -> torch.Tensor:
    """(L, Q, N) cost of one clip, finite; per output L (Q, K + 1) and (Q, T, h, w) logits."""
    queries, instances = len(class_logits[0]), len(target.labels)
    if instances > queries:
        raise ValueError(
            f"a clip has {instances} instances, but the model has {queries} queries; raise "
            "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"
        )
    if not instances:
        return class_logits[0].new_zeros(len(class_logits), queries, 0, dtype=torch.float32)
    cost = settings.class_weight * class_cost(torch.stack(class_logits), target.labels)
    if target.supervision == "mask":
        bce, dice = _mask_costs(mask_logits, target.masks, settings.num_points)
        cost = cost + settings.mask_weight * bce + settings.dice_weight * dice
    else:
        dice = _box_costs(mask_logits, target.clip_boxes, settings.num_points)
        cost = cost + settings.box_weight * dice
    cost = torch.nan_to_num(cost, _WORST_COST, _WORST_COST, _WORST_COST)
    return cost.clamp(-_WORST_COST, _WORST_COST)


def _assign(cost: torch.Tensor) -> torch.Tensor:
    """(L, N) queries of least total cost, from (L, Q, N) on the CPU."""
    outputs, _, instances = cost.shape
    queries = torch.zeros(outputs, instances, dtype=torch.int64)
    for output in range(outputs if instances else 0):
        rows, columns = linear_sum_assignment(cost[output].numpy())
        queries[output, torch.from_numpy(columns)] = torch.from_numpy(rows)
    return queries


def class_cost(class_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Minus the probability of each instance's class.

    Args:
        class_logits: (..., Q, K + 1).
        labels: (N,) int64 in [0, K]; K is "no object".

    Returns:
        (..., Q, N) float32 in [-1, 0].
    """
    return -class_logits.float().softmax(-1)[..., labels]


# ------------------------------------------------------------------------------------------ boxes


def box_extents(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and rows of the box around each predicted mask (logit > 0).

    Args:
        logits: (..., h, w).

    Returns:
        (..., w) and (..., h) bool; all False for an empty mask. The filled box is their outer
        product.
    """
    return _fill(logits.amax(-2) > 0), _fill(logits.amax(-1) > 0)


def _fill(occupied: torch.Tensor) -> torch.Tensor:
    """True from the first to the last True of the last axis."""
    begun = occupied.cumsum(-1) > 0
    not_over = occupied.flip(-1).cumsum(-1).flip(-1) > 0
    return begun & not_over


def box_dice_cost(
    columns: torch.Tensor, rows: torch.Tensor, boxes: ClipBoxes, num_points: int | None = None
) -> torch.Tensor:
    """Dice between predicted and true tubes of filled boxes (paper, Sec. 3.4).

    ``1 - (2 sum I + 1) / (sum A + sum B + 1)`` with areas A, B and intersections I, summed over
    the frames. The areas are counted in points: `num_points` on a whole frame, as in the official
    code, which draws them at random; here there is no sampling noise.

    Args:
        columns: (..., Q, T, w) bool, of the predicted boxes (`box_extents`).
        rows: (..., Q, T, h) bool.
        boxes: of N instances on the same grid.
        num_points: by default the number of cells of the grid.

    Returns:
        (..., Q, N) float32 in [0, 1].
    """
    width, height = columns.shape[-1], rows.shape[-1]
    scale = 1.0 if num_points is None else num_points / (width * height)
    columns, rows = columns.float(), rows.float()
    x_profile, y_profile = boxes.x_profile.float(), boxes.y_profile.float()
    across = torch.einsum("...qtw,ntw->...qnt", columns, x_profile)
    down = torch.einsum("...qth,nth->...qnt", rows, y_profile)
    overlap = scale * (across * down).sum(-1)
    predicted = scale * (columns.sum(-1) * rows.sum(-1)).sum(-1)
    true = scale * (x_profile.sum(-1) * y_profile.sum(-1)).sum(-1)
    return 1 - (2 * overlap + 1) / (predicted[..., None] + true + 1)


def _box_costs(logits: list[torch.Tensor], boxes: ClipBoxes, num_points: int) -> torch.Tensor:
    # Output by output: stacked logits of all queries would be a copy of gigabytes.
    extents = [box_extents(output) for output in logits]
    columns, rows = (torch.stack(part) for part in zip(*extents))
    return box_dice_cost(columns, rows, boxes, num_points)


# ------------------------------------------------------------------------------------------ masks


def point_costs(logits: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and dice of all pairs of predictions and instances at given points.

    Args:
        logits: (..., Q, P) at P points (those of all frames).
        truth: (N, P) in [0, 1] at the same points.

    Returns:
        Mean cross-entropy and ``1 - (2 sum pq + 1) / (sum p + sum q + 1)``, (..., Q, N) float32.
    """
    logits, truth = logits.float(), truth.float()
    # -q log p - (1 - q) log(1 - p) = softplus(x) - q x
    bce = F.softplus(logits).mean(-1)[..., None] - logits @ truth.T / truth.shape[-1]
    probability = logits.sigmoid()
    total = probability.sum(-1)[..., None] + truth.sum(-1)
    return bce, 1 - (2 * probability @ truth.T + 1) / (total + 1)


def _mask_costs(
    logits: list[torch.Tensor], masks: torch.Tensor, num_points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both costs of all outputs, (L, Q, N); queries, instances and frames share their points."""
    points = torch.rand(num_points, 2, device=masks.device)
    truth = _sample_tubes(masks, points)
    costs = [point_costs(_sample_tubes(output, points), truth) for output in logits]
    bce, dice = (torch.stack(part) for part in zip(*costs))
    return bce, dice


def _sample_tubes(tubes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(N, T * K) values of (N, T, h, w) tubes at the same K points of all frames."""
    planes = tubes.flatten(0, 1)[None].float()
    return point_sample(planes, points[None]).view(len(tubes), -1)
