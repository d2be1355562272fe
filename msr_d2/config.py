"""The configuration of msr_d2: detectron2's keys plus the ones added here.

Each room adds the keys of its own method; only keys that several rooms share stand in this file.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from .mask_free_vis.config import add_mask_free_vis_config
from .mask_scoring.config import add_mask_scoring_config


def add_msr_config(cfg: CfgNode) -> None:
    """Add every key of msr_d2 with its default to a detectron2 config, in place.

    Calling it twice is harmless: a key that exists keeps its value.

    Args:
        cfg: a detectron2 config, usually fresh from ``detectron2.config.get_cfg()``.
    """
    defaults = get_detectron2_cfg()
    _add_shared_config(defaults)
    add_mask_scoring_config(defaults)
    add_mask_free_vis_config(defaults)
    _add_missing_keys(cfg, defaults)


def get_cfg() -> CfgNode:
    """detectron2's default config with the keys of msr_d2."""
    cfg = get_detectron2_cfg()
    add_msr_config(cfg)
    return cfg


def _add_shared_config(cfg: CfgNode) -> None:
    # The mapper that turns a dataset dict into a model input (registry MAPPER_REGISTRY). Empty:
    # the one that fits MODEL.META_ARCHITECTURE, for images InstanceMapper, for MaskFreeVIS
    # ClipMapper, or BoxImageMapper where INPUT.DATASET_MAPPER_NAME is "coco_instance_lsj".
    cfg.INPUT.MAPPER = ""
    # Own data sets in the format of COCO or YouTube-VIS: [[name, json file, image folder], ...];
    # the names can then be used in DATASETS.TRAIN and DATASETS.TEST. The format is found in the
    # file; a fourth element "coco" or "ytvis" states it.
    cfg.DATASETS.REGISTER = []
    # Unreadable images are named and skipped; one more than this number stops the training.
    cfg.DATALOADER.MAX_BAD_IMAGES = 20
    # Conventions of maskrcnn-benchmark for boxes ("+1" widths), for weights converted from it.
    cfg.MODEL.LEGACY_BOXES = False


def _add_missing_keys(cfg: CfgNode, defaults: CfgNode) -> None:
    for key, value in defaults.items():
        if key not in cfg:
            cfg[key] = value
        elif isinstance(value, CfgNode):
            _add_missing_keys(cfg[key], value)
