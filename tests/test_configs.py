"""Every yaml of ours merges, and builds a model."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import msr_d2
from msr_d2.testing import tiny_cfg

ROOT = Path(__file__).parents[1]
YAMLS = sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("projects/*/ablations/*.yaml")])


def load(path):
    cfg = msr_d2.get_cfg()
    cfg.merge_from_file(str(path), allow_unsafe=False)
    return cfg


def test_there_are_configs():
    assert len(YAMLS) > 30


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_merges_and_builds(path):
    cfg = load(path)
    with torch.device("meta"):  # shapes only: fast, and no memory for R-101
        cfg.MODEL.DEVICE = "meta"
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert hasattr(model.roi_heads, "maskiou_head") == cfg.MODEL.MASKIOU_ON
    assert list(cfg.SOLVER.STEPS) == sorted(cfg.SOLVER.STEPS)
    assert cfg.SOLVER.STEPS[-1] < cfg.SOLVER.MAX_ITER


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_is_a_short_diff(path):
    """Only a base may be long; a variant that repeats its base hides what it changes."""
    text = path.read_text()
    if not path.stem.startswith("Base-") and "quickstart" not in path.parts:
        assert "_BASE_:" in text and len(text.splitlines()) <= 40


def test_adding_our_keys_twice_keeps_values():
    cfg = msr_d2.get_cfg()
    cfg.MODEL.MASKIOU_ON = True
    cfg.MODEL.ROI_MASKIOU_HEAD.TAU = 0.3
    msr_d2.add_msr_config(cfg)
    assert cfg.MODEL.MASKIOU_ON and cfg.MODEL.ROI_MASKIOU_HEAD.TAU == 0.3


def test_paper_recipe_of_the_base():
    cfg = load(ROOT / "configs/mask_scoring/ms_rcnn_R_50_FPN_18ep.yaml")
    head = cfg.MODEL.ROI_MASKIOU_HEAD
    assert (head.NUM_CONV, head.CONV_DIM, head.NUM_FC, head.FC_DIM) == (4, 256, 2, 1024)
    assert (cfg.MODEL.MASKIOU_LOSS_WEIGHT, head.TAU, head.INPUT) == (1.0, 0.0, "concat")
    assert cfg.MODEL.ROI_HEADS.SOFT_NMS.METHOD == "gaussian"
    assert cfg.SOLVER.MAX_ITER // 18 == pytest.approx(117_266 / 16, rel=0.01)


def test_without_our_keys_detectron2s_defaults_are_untouched():
    from detectron2.config import get_cfg

    ours, theirs = msr_d2.get_cfg(), get_cfg()

    def compare(theirs, ours):
        for key, value in theirs.items():
            if hasattr(value, "items"):
                compare(value, ours[key])
            else:
                assert ours[key] == value, key

    compare(theirs, ours)


def test_tiny_config_is_complete():
    assert tiny_cfg("fpn").MODEL.MASKIOU_ON
