"""Every yaml of ours merges, and builds a model."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import msr_d2
from msr_d2.testing import tiny_cfg

ROOT = Path(__file__).parents[1]
YAMLS = sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("projects/*/ablations/*.yaml")])
VIDEO = ROOT / "configs/mask_free_vis"


def load(path):
    cfg = msr_d2.get_cfg()
    cfg.merge_from_file(str(path), allow_unsafe=False)
    return cfg


def build(path):
    cfg = load(path)
    if cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer" and not importlib.util.find_spec("timm"):
        pytest.skip("Swin needs timm")
    with torch.device("meta"):  # shapes only: fast, and no memory for R-101
        cfg.MODEL.DEVICE = "meta"
        return cfg, build_model(cfg)


def test_there_are_configs():
    assert len(YAMLS) > 100


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_merges_and_builds(path):
    cfg, model = build(path)
    assert sum(p.numel() for p in model.parameters()) > 0
    if hasattr(model, "roi_heads"):
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


def test_paper_recipe_of_mask_free_vis():
    cfg = load(VIDEO / "ytvis_2019_box_R_50.yaml")
    free, temporal = cfg.MODEL.MASK_FREE, cfg.MODEL.MASK_FREE.TEMPORAL
    assert (free.SUPERVISION, free.DATASET_SUPERVISION) == ("box", [])
    assert (free.LAMBDA_PROJ, free.LAMBDA_PAIR, free.LAMBDA_TEMP) == (1.0, 1.0, 0.1)
    assert (temporal.PATCH_SIZE, temporal.RADIUS, temporal.TOP_K) == (3, 5, 5)
    assert (temporal.CANDIDATES, temporal.THRESHOLD, temporal.DISTANCE) == (
        "dense",
        "distance",
        0.05,
    )
    assert (temporal.TUBE, cfg.INPUT.SAMPLING_FRAME_NUM) == ("cyclic", 5)
    assert not cfg.INPUT.SAMPLING_FRAME_SHUFFLE and not free.LAB_SWAP_CHANNELS
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.IMS_PER_BATCH) == (
        1e-4,
        0.05,
        16,
    )


# What the tables say: iterations, steps, batch, learning rate, T, range, test short side, queries,
# points.
SCHEDULES = {
    "ytvis_2019_box_R_50": (6000, (4000,), 16, 1e-4, 5, 5, 360, 100, 20000),
    "ytvis_2019_box_Swin_L": (6000, (4000,), 16, 1e-4, 5, 5, 480, 200, 20000),
    "ytvis_2021_box_R_50": (8000, (5500,), 16, 1e-4, 5, 5, 360, 100, 20000),
    "ytvis_2019_joint_R_50": (70000, (37500,), 16, 1e-4, 3, 5, 360, 100, 20000),
    "ytvis_2019_joint_Swin_L": (140000, (75000,), 8, 5e-5, 3, 5, 480, 200, 20000),
    "ytvis_2019_mask_R_101": (6000, (4000,), 16, 1e-4, 2, 20, 360, 100, 12544),
    "ytvis_2019_mask_Swin_T": (6000, (4000,), 16, 1e-4, 2, 20, 480, 100, 12544),
    "ytvis_2021_mask_Swin_B": (8000, (5500,), 16, 1e-4, 2, 20, 480, 100, 12544),
    "ytvis_2021_mask_Swin_L": (8000, (5500,), 16, 1e-4, 2, 20, 360, 200, 12544),
    "ovis_box_R_50": (150000, (50000, 125000), 8, 5e-5, 6, 8, 360, 100, 20000),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_schedules(name):
    cfg = load(VIDEO / f"{name}.yaml")
    solver, source = cfg.SOLVER, cfg.INPUT
    found = (solver.MAX_ITER, tuple(solver.STEPS), solver.IMS_PER_BATCH, solver.BASE_LR)
    found += (source.SAMPLING_FRAME_NUM, source.SAMPLING_FRAME_RANGE, source.MIN_SIZE_TEST)
    former = cfg.MODEL.MASK_FORMER
    found += (former.NUM_OBJECT_QUERIES, former.TRAIN_NUM_POINTS)
    assert found == SCHEDULES[name]
    assert (solver.OPTIMIZER, solver.BACKBONE_MULTIPLIER, solver.WEIGHT_DECAY) == (
        "ADAMW",
        0.1,
        0.05,
    )
    clip = solver.CLIP_GRADIENTS
    assert (clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE) == (True, "full_model", 0.01)


# Tensors of the state dict (without the counter of the official criterion) and learnable numbers of
# the published models.
SIZES = {
    "ytvis_2019_box_R_50": (558, 43_959_977),
    "ytvis_2019_box_R_101": (813, 62_899_881),
    "ytvis_2019_box_Swin_L": (650, 215_511_709),
    "coco_box_R_50": (558, 43_970_257),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_published_models(name):
    _, model = build(VIDEO / f"{name}.yaml")
    learnable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (len(model.state_dict()), learnable) == SIZES[name]


@pytest.mark.parametrize("path", sorted(VIDEO.glob("*.yaml")), ids=lambda path: path.stem)
def test_names_say_what_the_video_configs_do(path):
    cfg, name = load(path), path.stem
    if name.startswith("Base-"):
        return
    free = cfg.MODEL.MASK_FREE
    by_masks = re.match(r"(official_)?(coco|ytvis_20\d\d|ovis)_mask_", name)
    assert free.SUPERVISION == ("mask" if by_masks else "box")
    official = "official" in name
    assert (official and not by_masks) == (free.WARMUP_COUNTER == "per_output")
    assert ("Swin" in name) == (cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer")
    assert (official and not by_masks) == (free.OUTSIDE == "black")
    assert all(kind == "mask" for _, kind in free.DATASET_SUPERVISION)
    assert {data for data, _ in free.DATASET_SUPERVISION} <= set(cfg.DATASETS.TRAIN)
    assert len(cfg.DATASETS.DATASET_RATIO) in (0, len(cfg.DATASETS.TRAIN))


def test_every_ablation_changes_only_what_it_names():
    """Each has the full model as its base, and those of the paper's own values change nothing."""
    base = load(VIDEO / "ytvis_2019_box_R_50.yaml")
    folder = ROOT / "projects/MaskFreeVIS/ablations"
    same = {path.stem for path in folder.glob("*.yaml") if load(path) == base}
    assert same == {
        "table3_all",
        "table4_k_5",
        "table5_color_lab",
        "table5_metric_l2",
        "table6_r_5",
        "table7_n_3",
        "table8_t_5",
        "table8_tube_cyclic",
        "threshold_d_0.05",
    }


def test_thresholds_of_the_ablations_grow_with_the_norm_of_the_patch():
    folder = ROOT / "projects/MaskFreeVIS/ablations"
    for name in ("table7_n_1", "table7_n_3", "table7_n_5", "table5_metric_l1"):
        temporal = load(folder / f"{name}.yaml").MODEL.MASK_FREE.TEMPORAL
        values = 3 * temporal.PATCH_SIZE**2
        norm = values if temporal.METRIC == "l1" else values**0.5
        assert temporal.DISTANCE / norm == pytest.approx(0.05 / 27**0.5, rel=1e-4), name


def test_supervised_comparison_with_the_published_rule_for_classes():
    cfg = load(VIDEO / "official_ytvis_2019_mask_R_50.yaml")
    assert cfg.MODEL.MASK_FREE.LABEL_FROM_LAST_FRAME
    cfg.MODEL.MASK_FREE.LABEL_FROM_LAST_FRAME = False
    assert cfg == load(VIDEO / "ytvis_2019_mask_R_50.yaml")


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
