"""detectron2's modules with the conventions of maskrcnn-benchmark.

Weights that were trained with that code base, like the official Mask Scoring R-CNN, give their
official outputs only when anchors, RoI pooling, clipping, rescaling and mask pasting are done its
way. What differs is computed in :mod:`msr_d2.layers.legacy_boxes`; the classes here bring it to
the places where detectron2 needs it. `configs/mask_scoring/official_R_50_FPN.yaml` selects them.

Boxes are continuous everywhere, as in detectron2. Keypoints and test-time augmentation keep
detectron2's conventions.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ROIAlign
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.anchor_generator import (
    ANCHOR_GENERATOR_REGISTRY,
    BufferList,
    DefaultAnchorGenerator,
)
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances

from ..layers.legacy_boxes import (
    clip_legacy_boxes,
    last_pixel_boxes,
    legacy_cell_anchors,
    legacy_levels,
    paste_legacy_masks,
    rescale_legacy_boxes,
)

# A model with only some of these gives neither the one nor the other code base's outputs.
LEGACY_SETTINGS = {
    "MODEL.LEGACY_BOXES": True,
    "MODEL.META_ARCHITECTURE": "LegacyGeneralizedRCNN",
    "MODEL.ANCHOR_GENERATOR.NAME": "LegacyAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.PROPOSAL_GENERATOR.NAME": "LegacyRPN",
    "MODEL.ROI_HEADS.NAME": "LegacyMaskScoringROIHeads",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}


def check_legacy_config(cfg: CfgNode) -> None:
    """Check that the legacy conventions are selected as a whole.

    Raises:
        ValueError: names every key that contradicts the others, and the value it needs.
    """
    wrong = []
    for key, expected in LEGACY_SETTINGS.items():
        value = _get_key(cfg, key)
        if value != expected:
            wrong.append(f"{key} is {value!r}: set it to {expected!r}")
    if wrong:
        raise ValueError(
            "the conventions of maskrcnn-benchmark work only together (start from "
            "configs/mask_scoring/official_R_50_FPN.yaml):\n  " + "\n  ".join(wrong)
        )


def _get_key(cfg: CfgNode, key: str):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


@ANCHOR_GENERATOR_REGISTRY.register()
class LegacyAnchorGenerator(DefaultAnchorGenerator):
    """Anchors of Detectron: rounded to whole pixels, centred on the middle of a cell."""

    def _calculate_anchors(self, sizes, aspect_ratios):
        return BufferList(
            legacy_cell_anchors(stride, level_sizes, level_ratios)
            for stride, level_sizes, level_ratios in zip(self.strides, sizes, aspect_ratios)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape) -> dict:
        if cfg.MODEL.ANCHOR_GENERATOR.OFFSET != 0:
            raise ValueError(
                f"MODEL.ANCHOR_GENERATOR.OFFSET is {cfg.MODEL.ANCHOR_GENERATOR.OFFSET}: it must be "
                "0.0 with LegacyAnchorGenerator, whose anchors are shifted already"
            )
        return super().from_config(cfg, input_shape)


@PROPOSAL_GENERATOR_REGISTRY.register()
class LegacyRPN(RPN):
    """RPN that clips as maskrcnn-benchmark does and, in training, ranks over the whole batch."""

    @torch.no_grad()
    def predict_proposals(self, anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes):
        """See ``RPN.predict_proposals``; clipping once more in detectron2's way changes nothing."""
        levels = [
            torch.stack([clip_legacy_boxes(b, size) for b, size in zip(boxes, image_sizes)])
            for boxes in self._decode_proposals(anchors, pred_anchor_deltas)
        ]
        proposals = find_top_rpn_proposals(
            levels,
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )
        if self.training:
            return keep_best_of_batch(proposals, self.post_nms_topk[True])
        return proposals


def keep_best_of_batch(proposals: list[Instances], topk: int) -> list[Instances]:
    """Keep the `topk` proposals with the highest `objectness_logits` of all images together."""
    logits = torch.cat([image.objectness_logits for image in proposals])
    if len(logits) <= topk:
        return proposals
    keep = torch.zeros_like(logits, dtype=torch.bool)
    keep[logits.topk(topk).indices] = True
    kept = keep.split([len(image) for image in proposals])
    return [image[mask] for image, mask in zip(proposals, kept)]


class LegacyROIPooler(ROIPooler):
    """RoIAlign over the pixels of a legacy box, without the half pixel shift.

    Takes the same arguments as ``ROIPooler``.
    """

    @classmethod
    def from_pooler(cls, pooler: ROIPooler) -> LegacyROIPooler:
        """Build one with the settings of a pooler of detectron2.

        Raises:
            ValueError: if that is not a pooler of type "ROIAlign".
        """
        levels = list(pooler.level_poolers)
        if not all(isinstance(level, ROIAlign) and not level.aligned for level in levels):
            raise ValueError(
                "the conventions of maskrcnn-benchmark need POOLER_TYPE 'ROIAlign' in "
                "MODEL.ROI_BOX_HEAD and in MODEL.ROI_MASK_HEAD"
            )
        return cls(
            output_size=pooler.output_size,
            scales=[level.spatial_scale for level in levels],
            sampling_ratio=levels[0].sampling_ratio,
            pooler_type="ROIAlign",
            canonical_box_size=pooler.canonical_box_size,
            canonical_level=pooler.canonical_level,
        )

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """Pool each box from its pyramid level.

        Args:
            x: feature maps (B, C, H, W), one for each level.
            box_lists: continuous boxes of each of the B images, N together.

        Returns:
            (N, C, output height, output width).
        """
        boxes = torch.cat([image.tensor for image in box_lists])
        image_index = torch.cat(
            [boxes.new_full((len(image), 1), index) for index, image in enumerate(box_lists)]
        )
        rois = torch.cat([image_index, last_pixel_boxes(boxes)], dim=1)
        levels = legacy_levels(
            boxes, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        pooled = x[0].new_zeros((len(boxes), x[0].shape[1], *self.output_size))
        for index, (features, pooler) in enumerate(zip(x, self.level_poolers)):
            chosen = (levels == index).nonzero()[:, 0]
            pooled = pooled.index_put((chosen,), pooler(features, rois[chosen]))
        return pooled


class LegacyFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Box predictor whose boxes are clipped as in maskrcnn-benchmark."""

    def predict_boxes(self, predictions, proposals) -> list[torch.Tensor]:
        """(R, K * 4) or (R, 4) boxes of each image; see ``FastRCNNOutputLayers``."""
        boxes = super().predict_boxes(predictions, proposals)
        return [
            clip_legacy_boxes(b.view(-1, b.shape[1] // 4, 4), image.image_size).view(b.shape)
            for b, image in zip(boxes, proposals)
        ]


@META_ARCH_REGISTRY.register()
class LegacyGeneralizedRCNN(GeneralizedRCNN):
    """R-CNN whose outputs are rescaled and pasted as in maskrcnn-benchmark."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        check_legacy_config(cfg)
        return super().from_config(cfg)

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """See ``GeneralizedRCNN.inference``."""
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return results
        processed = []
        for item, instances in zip(batched_inputs, results):
            height = item.get("height", instances.image_size[0])
            width = item.get("width", instances.image_size[1])
            processed.append({"instances": legacy_postprocess(instances, height, width)})
        return processed


def legacy_postprocess(
    instances: Instances, height: int, width: int, mask_threshold: float = 0.5
) -> Instances:
    """Bring detections to the size of the original image.

    Boxes are not clipped again, so that a box at the border may end up to one pixel outside.

    Args:
        instances: detections with `pred_boxes` at the size of the network's input; `pred_masks`
            are (N, 1, M, M) probabilities.
        height, width: size of the original image in pixels.

    Returns:
        Detections of that size; `pred_masks` are (N, height, width) bool. Boxes thinner than a
        pixel, which rescaling can turn inside out, are dropped.
    """
    old_height, old_width = instances.image_size
    boxes = instances.pred_boxes.tensor
    boxes = rescale_legacy_boxes(boxes, width / old_width, height / old_height)
    results = Instances((height, width), **instances.get_fields())
    results.pred_boxes = Boxes(boxes)
    results = results[results.pred_boxes.nonempty()]
    if results.has("pred_masks"):
        results.pred_masks = paste_legacy_masks(
            results.pred_masks[:, 0], results.pred_boxes.tensor, (height, width), mask_threshold
        )
    return results
