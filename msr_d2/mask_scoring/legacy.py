"""Mask Scoring ROI heads with the conventions of maskrcnn-benchmark, for its official weights."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY

from ..modeling.legacy import LegacyFastRCNNOutputLayers, LegacyROIPooler
from .roi_heads import MaskScoringROIHeads


@ROI_HEADS_REGISTRY.register()
class LegacyMaskScoringROIHeads(MaskScoringROIHeads):
    """``MaskScoringROIHeads`` that pools and clips as maskrcnn-benchmark does.

    With ``MODEL.MASKIOU_ON`` False it is plain Mask R-CNN of that code base.
    """

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape) -> dict:
        ret = super()._init_box_head(cfg, input_shape)
        ret["box_pooler"] = LegacyROIPooler.from_pooler(ret["box_pooler"])
        ret["box_predictor"] = LegacyFastRCNNOutputLayers(cfg, ret["box_head"].output_shape)
        return ret

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape) -> dict:
        ret = super()._init_mask_head(cfg, input_shape)
        if ret.get("mask_pooler") is not None:
            ret["mask_pooler"] = LegacyROIPooler.from_pooler(ret["mask_pooler"])
        return ret

    @classmethod
    def _init_maskiou_head(cls, cfg: CfgNode, input_shape) -> dict:
        ret = super()._init_maskiou_head(cfg, input_shape)
        if ret.get("maskiou_pooler") is not None:
            ret["maskiou_pooler"] = LegacyROIPooler.from_pooler(ret["maskiou_pooler"])
        return ret
