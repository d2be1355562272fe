"""All losses of the video model: classification, box supervision and mask supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn import functional as F

from .box_settings import PairwiseSettings, TemporalSettings, check_choice
from .loss_weights import BOX_LOSSES, MASK_LOSSES, loss_weights, mean_num_masks, warmup_factors
from .losses import (
    ABSENT_FRAMES,
    pairwise_color_sums,
    pool,
    projection_sums,
    temporal_knn_patch_sums,
)
from .matching import MatchSettings, match
from .point_losses import PointSettings, mask_point_losses
from .targets import ClipTargets
from .trainable import trainable


class VideoSetCriterion(nn.Module):
    """Matches queries to instances and computes the weighted losses of every output.

    Letters: B clips of T frames, Q queries, K classes, N instances of a clip, L supervised outputs,
    h and w the mask grid.

    ===================== =========================================================== ===========
    key                   loss                                                        clips
    ===================== =========================================================== ===========
    loss_ce               cross-entropy over all queries                              all
    loss_mask_proj        projection, paper Eq. 5                                     with boxes
    loss_bound            pairwise colour affinity, paper Eq. 6                       with boxes
    loss_bound_neighbor   temporal KNN-patch, paper Eq. 2 to 4                        with boxes
    loss_mask, loss_dice  cross-entropy and dice at points, arXiv 2112.10764          with masks
    ===================== =========================================================== ===========

    The final output has these keys, auxiliary output i the suffix ``_i``. Which keys there are
    depends on the config alone: a loss for which a batch has no clip is a zero that is connected
    to the predictions, so that every parameter has a gradient on every process. The box losses
    are means over all instances of the batch on this process.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        no_object_weight: float,
        weights: dict[str, float],
        matching: MatchSettings,
        points: PointSettings,
        pairwise: PairwiseSettings,
        temporal: TemporalSettings,
        absent_frames: str = "suppress",
        label_from_last_frame: bool = False,
        warmup_per_output: bool = False,
        deep_supervision: bool = True,
    ):
        """
        Args:
            num_classes: K.
            no_object_weight: weight of "no object" in the cross-entropy; a class has weight 1.
            weights: of the losses, by key without suffix. Only these keys are computed; what has
                weight 0 stays a zero.
            matching, points, pairwise, temporal: settings of the parts.
            absent_frames: projection loss where an instance is absent, see ``projection_loss``.
            label_from_last_frame: train instances of videos that are absent from the last frame
                as "no object", as the official code does.
            warmup_per_output: each supervised output counts as a step of the warm-up, as in the
                official code; otherwise an iteration is a step.
            deep_supervision: whether the auxiliary outputs have losses.
        """
        super().__init__()
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)
        self.num_classes = num_classes
        self.weights = dict(weights)
        self.matching, self.points = matching, points
        self.pairwise, self.temporal = pairwise, temporal
        self.absent_frames = absent_frames
        self.label_from_last_frame = label_from_last_frame
        self.warmup_per_output = warmup_per_output
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments of ``__init__`` from a config."""
        former, free = cfg.MODEL.MASK_FORMER, cfg.MODEL.MASK_FREE
        key, counters = "MODEL.MASK_FREE.", ("per_iteration", "per_output")
        check_choice(key + "ABSENT_FRAMES", free.ABSENT_FRAMES, ABSENT_FRAMES)
        check_choice(key + "WARMUP_COUNTER", free.WARMUP_COUNTER, counters)
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "no_object_weight": former.NO_OBJECT_WEIGHT,
            "weights": loss_weights(cfg),
            "matching": MatchSettings.from_config(cfg),
            "points": PointSettings.from_config(former),
            "pairwise": PairwiseSettings.from_config(free.PAIRWISE),
            "temporal": TemporalSettings.from_config(free.TEMPORAL),
            "absent_frames": free.ABSENT_FRAMES,
            "label_from_last_frame": free.LABEL_FROM_LAST_FRAME,
            "warmup_per_output": free.WARMUP_COUNTER == "per_output",
            "deep_supervision": former.DEEP_SUPERVISION,
        }

    def forward(
        self,
        outputs: dict,
        targets: Sequence[ClipTargets],
        num_masks: torch.Tensor | float | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            outputs: ``pred_logits`` (B, Q, K + 1) and ``pred_masks`` (B, Q, T, h, w) logits, and
                the same of earlier layers in the list ``aux_outputs``.
            targets: of the B clips.
            num_masks: divisor of the point losses; by default :meth:`num_masks` of these targets.

        Returns:
            Weighted scalar losses. With warm-up, an ``EventStorage`` tells the iteration.

        Raises:
            ValueError: for a clip whose kind of supervision has no losses here.
        """
        auxiliary = outputs.get("aux_outputs", []) if self.deep_supervision else []
        layers = [*auxiliary, outputs]
        class_logits = torch.stack([layer["pred_logits"] for layer in layers])
        mask_logits = [layer["pred_masks"] for layer in layers]
        self._check_supervision(targets)
        targets = trainable(
            targets, class_logits.shape[2], self.num_classes, self.label_from_last_frame
        )
        index = _flat_index(match(class_logits, mask_logits, targets, self.matching), class_logits)
        # One gather for each output, without a copy of all masks; (L, N of all clips, T, h, w).
        clip, query = index // class_logits.shape[2], index % class_logits.shape[2]
        matched = torch.stack([x[i, j] for x, i, j in zip(mask_logits, clip, query)])
        clips = list(zip(matched.split([len(t.labels) for t in targets], dim=1), targets))

        losses = {key: matched[:, :0].float().flatten(1).sum(1) for key in self.weights}
        losses["loss_ce"] = self._classification(class_logits, index, targets)
        losses.update(self._box_losses([c for c in clips if c[1].supervision == "box"]))
        losses.update(
            self._mask_losses([c for c in clips if c[1].supervision == "mask"], num_masks)
        )
        return self._weighted(losses)

    def num_masks(self, count: int) -> torch.Tensor:
        """Divisor of the point losses: instances with masks, averaged over the processes.

        It is at least 1. All processes must call equally often; where no data set has masks
        nothing is exchanged.

        Args:
            count: of this process.
        """
        if MASK_LOSSES[0] not in self.weights:
            return self.empty_weight.new_ones(())
        return mean_num_masks(count, self.empty_weight.device)

    def _check_supervision(self, targets: Sequence[ClipTargets]) -> None:
        for target in targets:
            needed = MASK_LOSSES if target.supervision == "mask" else BOX_LOSSES
            if not any(key in self.weights for key in needed):
                raise ValueError(
                    f"a clip has supervision '{target.supervision}', but no data set of "
                    "DATASETS.TRAIN has by MODEL.MASK_FREE.SUPERVISION and DATASET_SUPERVISION"
                )

    # ----------------------------------------------------------------------------------- losses

    def _classification(
        self, class_logits: torch.Tensor, index: torch.Tensor, targets: list[ClipTargets]
    ) -> torch.Tensor:
        """(L,) weighted mean over all queries; those without an instance are "no object"."""
        outputs = len(class_logits)
        classes = index.new_full((outputs, class_logits[0, ..., 0].numel()), self.num_classes)
        labels = torch.cat([target.labels for target in targets])
        classes.scatter_(1, index, labels.expand(outputs, -1))
        with torch.autocast(class_logits.device.type, enabled=False):
            weight, logits = self.empty_weight, class_logits.float().flatten(0, 2)
            loss = F.cross_entropy(logits, classes.flatten(), weight, reduction="none")
            # All weights are 0 if "no object" has none and the batch no instance.
            total = weight[classes].sum(1).clamp(min=torch.finfo(weight.dtype).eps)
            return loss.view(outputs, -1).sum(1) / total

    def _box_losses(self, clips: list[tuple[torch.Tensor, ClipTargets]]) -> dict[str, torch.Tensor]:
        """(L,) each, of the losses for which there are clips."""
        functions = dict(zip(BOX_LOSSES, (self._projection, self._pairwise, self._temporal)))
        losses = {}
        for key, function in functions.items():
            sums = [function(*clip) for clip in clips if self.weights.get(key)]
            sums = [pair for pair in sums if pair is not None]
            if sums:
                losses[key] = pool(sums)
        return losses

    def _projection(self, logits: torch.Tensor, target: ClipTargets):
        return projection_sums(logits, target.clip_boxes, absent=self.absent_frames)

    def _pairwise(self, logits: torch.Tensor, target: ClipTargets):
        return pairwise_color_sums(
            logits,
            target.affinities.edges,
            target.clip_boxes,
            dilation=self.pairwise.dilation,
            size=self.pairwise.size,
        )

    def _temporal(self, logits: torch.Tensor, target: ClipTargets):
        if not target.affinities.matches:  # a single frame
            return None
        return temporal_knn_patch_sums(
            logits,
            target.affinities.matches,
            target.clip_boxes.union(),
            normalise=self.temporal.normalise,
        )

    def _mask_losses(
        self,
        clips: list[tuple[torch.Tensor, ClipTargets]],
        num_masks: torch.Tensor | float | None,
    ) -> dict[str, torch.Tensor]:
        """(L,) each, or nothing without such clips."""
        if MASK_LOSSES[0] not in self.weights:
            return {}
        if num_masks is None:
            # Also without such clips, because the other processes wait for it.
            num_masks = self.num_masks(sum(len(target.labels) for _, target in clips))
        if not clips:
            return {}
        pairs = [
            mask_point_losses(logits, target.masks, num_masks, self.points)
            for logits, target in clips
        ]
        return {key: torch.stack(x).sum(0) for key, x in zip(MASK_LOSSES, zip(*pairs))}

    # ---------------------------------------------------------------------------------- weights

    def _weighted(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        result = {}
        for key, values in losses.items():
            factors = self._warmup(key, len(values))
            for output, (value, factor) in enumerate(zip(values, factors)):
                suffix = "" if output == len(values) - 1 else f"_{output}"
                result[key + suffix] = self.weights[key] * factor * value
        return result

    def _warmup(self, key: str, outputs: int) -> list[float]:
        settings = {"loss_bound": self.pairwise, "loss_bound_neighbor": self.temporal}.get(key)
        if settings is None or settings.warmup_iters <= 0:
            return [1.0] * outputs
        iteration = get_event_storage().iter
        return warmup_factors(iteration, settings.warmup_iters, outputs, self.warmup_per_output)


def _flat_index(queries: list[torch.Tensor], class_logits: torch.Tensor) -> torch.Tensor:
    """(L, N of all clips) index into the B * Q queries, on the device of the predictions."""
    num_queries = class_logits.shape[2]
    index = torch.cat([x + b * num_queries for b, x in enumerate(queries)], dim=1)
    return index.to(class_logits.device, non_blocking=True)
