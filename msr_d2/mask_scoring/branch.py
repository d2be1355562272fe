"""The MaskIoU branch as a mixin for ROI heads of detectron2."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.mask_head import (
    BaseMaskRCNNHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import nn

from ..layers import pearson_correlation
from ..layers.soft_nms import SOFT_NMS_METHODS
from .heads import build_maskiou_head, select_class
from .inference import SCORE_MODES, add_mask_scores, soft_nms_inference
from .losses import mask_iou_loss
from .targets import (
    TARGET_MODES,
    ImageTargets,
    RasterizedMasks,
    class_ground_truth,
    gt_class_targets,
    logit,
    mask_areas,
    mask_iou_targets,
    rasterize_masks,
    selected_entries,
)


class MaskScoringMixin:
    """Adds the MaskIoU branch, and Soft-NMS, to ROI heads of detectron2.

    The mask head must compute its logits in ``layers`` and leave ``forward`` as
    ``BaseMaskRCNNHead`` has it.
    """

    @configurable
    def __init__(
        self,
        *,
        maskiou_head: nn.Module | None = None,
        maskiou_pooler: ROIPooler | None = None,
        maskiou_loss_weight: float = 1.0,
        maskiou_target: str = "gt_class",
        maskiou_tau: float = 0.0,
        mask_threshold: float = 0.5,
        mask_score: str = "product",
        overwrite_scores: bool = False,
        soft_nms: dict | None = None,
        **kwargs,
    ):
        """
        Args:
            maskiou_head: see :class:`MaskIoUHead`; None for plain Mask R-CNN.
            maskiou_pooler: RoI pooler of the head's own, for the high-resolution input (Table 4d);
                None when it shares the features of the mask head.
            maskiou_loss_weight: weight of `loss_maskiou`.
            maskiou_target: "gt_class", "all" or "positive" (Table 5).
            maskiou_tau: only samples with a MaskIoU above it are trained (Table 6).
            mask_threshold: probability above which a pixel counts as mask in the target.
            mask_score: "product" or "maskiou", see :func:`combine_scores`.
            overwrite_scores: `scores` carries the mask score.
            soft_nms: keyword arguments of :func:`msr_d2.layers.soft_nms`; None for detectron2's
                own NMS.

        Raises:
            ValueError: for an unknown name, or a number outside of its range.
        """
        super().__init__(**kwargs)
        _check_choice("MODEL.ROI_MASKIOU_HEAD.TARGET", maskiou_target, TARGET_MODES)
        _check_choice("MODEL.ROI_MASKIOU_HEAD.SCORE", mask_score, SCORE_MODES)
        if not 0 <= maskiou_tau < 1:
            raise ValueError(f"MODEL.ROI_MASKIOU_HEAD.TAU is {maskiou_tau}: it must be in [0, 1)")
        self.maskiou_on = maskiou_head is not None
        if self.maskiou_on:
            _check_mask_head(getattr(self, "mask_head", None))
            self.maskiou_head = maskiou_head
        self.maskiou_pooler = maskiou_pooler
        self.maskiou_loss_weight = maskiou_loss_weight
        self.maskiou_target = maskiou_target
        self.maskiou_tau = maskiou_tau
        self.mask_logit_threshold = logit(mask_threshold)
        self.mask_score = mask_score
        self.overwrite_scores = overwrite_scores
        self.soft_nms = soft_nms

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        if cfg.MODEL.MASKIOU_ON:
            _check_mask_branch(cfg)
        ret = super().from_config(cfg, input_shape)
        ret["soft_nms"] = _soft_nms_arguments(cfg)
        if not cfg.MODEL.MASKIOU_ON:
            return ret
        head = cfg.MODEL.ROI_MASKIOU_HEAD
        ret.update(cls._init_maskiou_head(cfg, input_shape))
        ret.update(
            maskiou_loss_weight=cfg.MODEL.MASKIOU_LOSS_WEIGHT,
            maskiou_target=head.TARGET,
            maskiou_tau=head.TAU,
            mask_threshold=head.MASK_THRESHOLD,
            mask_score=head.SCORE,
            overwrite_scores=head.OVERWRITE_SCORES,
        )
        return ret

    @classmethod
    def _init_maskiou_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        mask_cfg, in_features = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.ROI_HEADS.IN_FEATURES
        side, pooler = mask_cfg.POOLER_RESOLUTION, None
        if cfg.MODEL.ROI_MASKIOU_HEAD.INPUT == "concat_hr":
            side = 2 * side  # the mask head doubles the resolution
            pooler = ROIPooler(
                output_size=side,
                scales=tuple(1.0 / input_shape[k].stride for k in in_features),
                sampling_ratio=mask_cfg.POOLER_SAMPLING_RATIO,
                pooler_type=mask_cfg.POOLER_TYPE,
            )
        shape = ShapeSpec(channels=input_shape[in_features[0]].channels, height=side, width=side)
        return {"maskiou_head": build_maskiou_head(cfg, shape), "maskiou_pooler": pooler}

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals, targets):
        """As in detectron2; adds what the MaskIoU target needs to know of the ground truth."""
        if self.maskiou_on and self.mask_on:
            for image in targets:
                if len(image) and not image.has("gt_mask_areas"):
                    # Once for each object here, and not for each of its many proposals later.
                    image.gt_mask_areas = mask_areas(image.gt_masks).to(image.gt_classes.device)
        sampled = super().label_and_sample_proposals(proposals, targets)
        if self.maskiou_on and self.maskiou_target != "gt_class":
            for image_proposals, image_targets in zip(sampled, targets):
                image_proposals.gt_image = ImageTargets(image_targets, len(image_proposals))
        return sampled

    def _mask_branch(self, roi_features, instances, maskiou_features=None):
        """Masks and MaskIoU of RoIs whose features are pooled already.

        Args:
            roi_features: (N, C, h, w), the images one after the other.
            instances: positive proposals with `gt_*` fields in training, detections in inference.
            maskiou_features: RoI features of the MaskIoU head where they are not the same.

        Returns:
            A dict of losses in training, `instances` with new fields in inference.
        """
        if not self.maskiou_on:
            return self.mask_head(roi_features, instances)
        if maskiou_features is None:
            maskiou_features = roi_features
        mask_logits = self.mask_head.layers(roi_features)
        if self.training:
            return self._mask_losses(maskiou_features, mask_logits, instances)
        classes = cat([x.pred_classes for x in instances])
        mask_iou = self.maskiou_head(maskiou_features, mask_logits, classes)
        mask_rcnn_inference(mask_logits, instances)
        add_mask_scores(
            instances, select_class(mask_iou, classes), self.mask_score, self.overwrite_scores
        )
        return instances

    def _mask_losses(self, maskiou_features, mask_logits, instances) -> dict[str, torch.Tensor]:
        boxes = [x.proposal_boxes for x in instances]
        side, device = mask_logits.shape[-1], mask_logits.device
        rasters = [
            rasterize_masks(x.gt_masks if len(x) else None, b, side, device)
            for x, b in zip(instances, boxes)
        ]
        rasterized = [_with_raster(x, raster) for x, raster in zip(instances, rasters)]
        loss_mask = mask_rcnn_loss(mask_logits, rasterized, self.mask_head.vis_period)

        classes = cat([x.gt_classes for x in instances])
        prediction = self.maskiou_head(maskiou_features, mask_logits, classes)
        with torch.autocast(device.type, enabled=False):
            loss_maskiou = self._maskiou_loss(
                prediction.float(), mask_logits.detach(), rasters, instances, classes
            )
        return {
            "loss_mask": loss_mask * self.mask_head.loss_weight,
            "loss_maskiou": loss_maskiou * self.maskiou_loss_weight,
        }

    def _maskiou_loss(self, prediction, mask_logits, rasters, instances, classes) -> torch.Tensor:
        boxes = cat([x.proposal_boxes.tensor for x in instances])
        gt_masks = cat(rasters)
        areas = cat([x.gt_mask_areas if len(x) else boxes.new_zeros(0) for x in instances])
        threshold = self.mask_logit_threshold
        target = gt_class_targets(mask_logits, gt_masks, boxes, areas, classes, threshold)
        own = select_class(prediction, classes)
        _log_maskiou(own.detach(), target, self.maskiou_tau)
        if self.maskiou_target == "gt_class":
            return mask_iou_loss(own, target, target > self.maskiou_tau)

        per_image = [
            class_ground_truth(
                x.gt_image.targets,
                x.proposal_boxes,
                x.gt_classes,
                raster,
                x.gt_mask_areas,
                self.num_classes,
            )
            for x, raster in zip(instances, rasters)
            if len(x)
        ]
        if not per_image:
            return prediction.sum() * 0
        class_masks = cat([masks for masks, _ in per_image], dim=1)
        class_areas = cat([areas for _, areas in per_image], dim=1)
        class_logits = mask_logits.transpose(0, 1)  # one channel serves all classes if agnostic
        targets = mask_iou_targets(class_logits, class_masks, boxes, class_areas, threshold)
        present = class_masks.flatten(2).any(dim=2)
        selected = selected_entries(targets, present, self.maskiou_target, self.maskiou_tau)
        return mask_iou_loss(prediction.t(), targets, selected)

    def _select_detections(self, boxes, scores, proposals) -> list[Instances]:
        return soft_nms_inference(boxes, scores, [x.image_size for x in proposals], self.soft_nms)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{key} is {value!r}: use one of {choices}")


def _check_mask_branch(cfg: CfgNode) -> None:
    if not cfg.MODEL.MASK_ON:
        raise ValueError("MODEL.MASKIOU_ON is True, so MODEL.MASK_ON must be True as well")
    if not cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE:
        raise ValueError(
            "MODEL.ROI_MASK_HEAD.POOLER_TYPE is empty (a PointRend head?), but the MaskIoU head "
            "needs pooled RoI features: choose ROIAlignV2"
        )


def _check_mask_head(mask_head: nn.Module | None) -> None:
    if getattr(type(mask_head), "forward", None) is not BaseMaskRCNNHead.forward:
        raise ValueError(
            f"the MaskIoU head needs a mask head that inherits `forward` of BaseMaskRCNNHead and "
            f"computes its logits in `layers`; {type(mask_head).__name__} does not"
        )


def _soft_nms_arguments(cfg: CfgNode) -> dict | None:
    options = cfg.MODEL.ROI_HEADS.SOFT_NMS
    _check_choice("MODEL.ROI_HEADS.SOFT_NMS.METHOD", options.METHOD, ("hard", *SOFT_NMS_METHODS))
    if options.METHOD == "hard":
        return None
    if options.SIGMA <= 0:
        raise ValueError(f"MODEL.ROI_HEADS.SOFT_NMS.SIGMA is {options.SIGMA}: it must be positive")
    if options.SCORE_THRESH < 0:
        raise ValueError(
            f"MODEL.ROI_HEADS.SOFT_NMS.SCORE_THRESH is {options.SCORE_THRESH}: it must not be "
            "negative"
        )
    return {
        "method": options.METHOD,
        "sigma": options.SIGMA,
        "iou_threshold": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
        "score_threshold": options.SCORE_THRESH,
        "topk": cfg.TEST.DETECTIONS_PER_IMAGE,
    }


def _with_raster(instances: Instances, raster: torch.Tensor) -> Instances:
    return Instances(
        instances.image_size,
        gt_classes=instances.gt_classes,
        proposal_boxes=instances.proposal_boxes,
        gt_masks=RasterizedMasks(raster),
    )


def _log_maskiou(prediction: torch.Tensor, target: torch.Tensor, tau: float) -> None:
    """Scalars of the positive RoIs that are trained, into the event storage."""
    storage = get_event_storage()
    prediction, target = torch.stack([prediction, target]).cpu()  # one wait for the device
    selected = target > tau
    share = selected.float().mean().item() if len(target) else 0.0
    storage.put_scalar("maskiou/positive_share", share)
    if not selected.any():
        return
    prediction, target = prediction[selected], target[selected]
    storage.put_scalar("maskiou/mean_predicted", prediction.mean().item())
    storage.put_scalar("maskiou/mean_target", target.mean().item())
    correlation = pearson_correlation(prediction, target)
    if correlation == correlation:  # undefined for a single or for equal values
        storage.put_scalar("maskiou/correlation", correlation)
