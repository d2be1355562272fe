"""ROI heads with a MaskIoU head: for FPN models, for Cascade R-CNN and for C4 models."""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    Res5ROIHeads,
    StandardROIHeads,
    select_foreground_proposals,
)

from .branch import MaskScoringMixin
from .heads import build_maskiou_head


@ROI_HEADS_REGISTRY.register()
class MaskScoringROIHeads(MaskScoringMixin, StandardROIHeads):
    """detectron2's ``StandardROIHeads`` with a MaskIoU head."""

    def _forward_box(self, features, proposals, *args):
        if self.training or self.soft_nms is None:
            return super()._forward_box(features, proposals, *args)
        boxes, scores = self._predict_boxes(features, proposals)
        return self._select_detections(boxes, scores, proposals)

    def _predict_boxes(self, features, proposals):
        features = [features[f] for f in self.box_in_features]
        pooled = self.box_pooler(features, [x.proposal_boxes for x in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        boxes = self.box_predictor.predict_boxes(predictions, proposals)
        return boxes, self.box_predictor.predict_probs(predictions, proposals)

    def _forward_mask(self, features, instances):
        if not (self.mask_on and self.maskiou_on):
            return super()._forward_mask(features, instances)
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        features = [features[f] for f in self.mask_in_features]
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        roi_features = self.mask_pooler(features, boxes)
        own = None if self.maskiou_pooler is None else self.maskiou_pooler(features, boxes)
        return self._mask_branch(roi_features, instances, own)


@ROI_HEADS_REGISTRY.register()
class CascadeMaskScoringROIHeads(MaskScoringROIHeads, CascadeROIHeads):
    """detectron2's ``CascadeROIHeads`` with a MaskIoU head.

    Masks are trained on the samples of the first stage; the class score that the MaskIoU
    multiplies is the mean over the stages.
    """

    def _predict_boxes(self, features, proposals):
        features = [features[f] for f in self.box_in_features]
        image_sizes = [x.image_size for x in proposals]
        boxes, stage_scores = None, []
        for k, predictor in enumerate(self.box_predictor):
            if k > 0:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
            predictions = self._run_stage(features, proposals, k)
            boxes = predictor.predict_boxes(predictions, proposals)
            stage_scores.append(predictor.predict_probs(predictions, proposals))
        return boxes, [torch.stack(scores).mean(dim=0) for scores in zip(*stage_scores)]


@ROI_HEADS_REGISTRY.register()
class Res5MaskScoringROIHeads(MaskScoringMixin, Res5ROIHeads):
    """detectron2's ``Res5ROIHeads`` (C4 models) with a MaskIoU head.

    The head sees the RoI feature after res5, which is also the input of the mask head; the paper
    does not say which one it took for its model without FPN.
    """

    @classmethod
    def _init_maskiou_head(cls, cfg, input_shape):
        if cfg.MODEL.ROI_MASKIOU_HEAD.INPUT == "concat_hr":
            raise ValueError(
                "MODEL.ROI_MASKIOU_HEAD.INPUT 'concat_hr' is not available for Res5 ROI heads: "
                "use 'concat', or a model with FPN"
            )
        channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8
        side = (cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION - 1) // 2 + 1  # res5 has stride 2
        shape = ShapeSpec(channels=channels, height=side, width=side)
        return {"maskiou_head": build_maskiou_head(cfg, shape)}

    def forward(self, images, features, proposals, targets=None):
        if not self.maskiou_on and self.soft_nms is None:
            return super().forward(images, features, proposals, targets)
        if self.training:
            proposals = self.label_and_sample_proposals(proposals, targets)
        feature_list = [features[f] for f in self.in_features]
        roi_features = self._shared_roi_transform(
            feature_list, [x.proposal_boxes for x in proposals]
        )
        predictions = self.box_predictor(roi_features.mean(dim=[2, 3]))
        if self.training:
            losses = self.box_predictor.losses(predictions, proposals)
            if self.mask_on:
                positives, is_positive = select_foreground_proposals(proposals, self.num_classes)
                losses.update(self._mask_branch(roi_features[cat(is_positive)], positives))
            return [], losses
        if self.soft_nms is None:
            detections, _ = self.box_predictor.inference(predictions, proposals)
        else:
            boxes = self.box_predictor.predict_boxes(predictions, proposals)
            scores = self.box_predictor.predict_probs(predictions, proposals)
            detections = self._select_detections(boxes, scores, proposals)
        return self.forward_with_given_boxes(features, detections), {}

    def forward_with_given_boxes(self, features, instances):
        if not (self.mask_on and self.maskiou_on):
            return super().forward_with_given_boxes(features, instances)
        feature_list = [features[f] for f in self.in_features]
        roi_features = self._shared_roi_transform(feature_list, [x.pred_boxes for x in instances])
        return self._mask_branch(roi_features, instances)
