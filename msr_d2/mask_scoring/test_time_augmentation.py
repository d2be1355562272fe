"""Test-time augmentation that keeps mask scores."""

from __future__ import annotations

import torch
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.modeling.postprocessing import detector_postprocess

from .inference import add_mask_scores


class MaskScoringTTA(GeneralizedRCNNWithTTA):
    """detectron2's test-time augmentation; the MaskIoU is averaged over the augmented images.

    `mask_scores` are the merged class scores times the mean predicted MaskIoU. For models without
    MaskIoU head it does what its parent does.
    """

    def _inference_one_image(self, input: dict) -> dict:
        if not self.cfg.MODEL.MASKIOU_ON:
            return super()._inference_one_image(input)
        shape = (input["height"], input["width"])
        augmented, transforms = self._get_augmented_inputs(input)
        with self._turn_off_roi_heads(["mask_on", "keypoint_on"]):
            boxes, scores, classes = self._get_augmented_boxes(augmented, transforms)
        merged = self._merge_detections(boxes, scores, classes, shape)

        given = self._rescale_detected_boxes(augmented, merged, transforms)
        outputs = self._batch_inference(augmented, given)
        head = self.cfg.MODEL.ROI_MASKIOU_HEAD
        mask_iou = torch.stack([x.mask_iou for x in outputs]).mean(dim=0)
        add_mask_scores([merged], mask_iou, head.SCORE, head.OVERWRITE_SCORES)
        merged.pred_masks = self._reduce_pred_masks(outputs, transforms)
        return {"instances": detector_postprocess(merged, *shape)}
