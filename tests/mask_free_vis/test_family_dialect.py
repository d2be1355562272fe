"""A yaml of the Mask2Former-VIS family runs with only META_ARCHITECTURE changed."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

import msr_d2
from msr_d2.engine.optimizer import build_optimizer
from msr_d2.testing import tiny_clips

# All keys of the family's video configs, with small numbers; the comments are its conventions.
FAMILY = """
MODEL:
  BACKBONE:
    FREEZE_AT: 0
    NAME: "build_resnet_backbone"
  WEIGHTS: ""
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  MASK_ON: True
  RESNETS:
    DEPTH: 50
    STEM_TYPE: "basic"  # not used
    STEM_OUT_CHANNELS: 8
    WIDTH_PER_GROUP: 8
    RES2_OUT_CHANNELS: 32
    STRIDE_IN_1X1: False
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
    NORM: "BN"
    RES5_MULTI_GRID: [1, 1, 1]  # not used
  META_ARCHITECTURE: "VideoMaskFormer"
  SEM_SEG_HEAD:
    NAME: "MaskFormerHead"
    IGNORE_VALUE: 255
    NUM_CLASSES: 3
    LOSS_WEIGHT: 1.0
    CONVS_DIM: 32
    MASK_DIM: 32
    NORM: "GN"
    PIXEL_DECODER_NAME: "MSDeformAttnPixelDecoder"
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES: ["res3", "res4", "res5"]
    DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS: 4
    DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS: 8
    COMMON_STRIDE: 4
    TRANSFORMER_ENC_LAYERS: 1
  MASK_FORMER:
    TRANSFORMER_DECODER_NAME: "VideoMultiScaleMaskedTransformerDecoder"
    TRANSFORMER_IN_FEATURE: "multi_scale_pixel_decoder"
    DEEP_SUPERVISION: True
    NO_OBJECT_WEIGHT: 0.1
    CLASS_WEIGHT: 2.0
    MASK_WEIGHT: 5.0
    DICE_WEIGHT: 5.0
    HIDDEN_DIM: 32
    NUM_OBJECT_QUERIES: 5
    NHEADS: 8
    DROPOUT: 0.0
    DIM_FEEDFORWARD: 64
    ENC_LAYERS: 0
    PRE_NORM: False
    ENFORCE_INPUT_PROJ: False
    SIZE_DIVISIBILITY: 32
    DEC_LAYERS: 3
    TRAIN_NUM_POINTS: 64
    OVERSAMPLE_RATIO: 3.0
    IMPORTANCE_SAMPLE_RATIO: 0.75
    TEST:
      SEMANTIC_ON: False
      INSTANCE_ON: True
      PANOPTIC_ON: False
      OVERLAP_THRESHOLD: 0.8
      OBJECT_MASK_THRESHOLD: 0.8
DATASETS:
  DATASET_RATIO: [1.0, 0.75]
  TRAIN: ("coco_2017_train", "ytvis_2019_train",)
  TEST: ("ytvis_2019_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.0001
  STEPS: (4000,)
  MAX_ITER: 6000
  WARMUP_FACTOR: 1.0
  WARMUP_ITERS: 10
  WEIGHT_DECAY: 0.05
  WEIGHT_DECAY_EMBED: 0.0
  OPTIMIZER: "ADAMW"
  BACKBONE_MULTIPLIER: 0.1
  LR_SCHEDULER_NAME: "WarmupMultiStepLR"
  CLIP_GRADIENTS:
    ENABLED: True
    CLIP_TYPE: "full_model"
    CLIP_VALUE: 0.01
    NORM_TYPE: 2.0
  AMP:
    ENABLED: True
INPUT:
  DATASET_MAPPER_NAME: ""
  MIN_SIZE_TRAIN_SAMPLING: "choice_by_clip"
  RANDOM_FLIP: "flip_by_clip"
  AUGMENTATIONS: []
  SAMPLING_FRAME_NUM: 2
  SAMPLING_FRAME_RANGE: 20
  SAMPLING_FRAME_SHUFFLE: False
  MIN_SIZE_TRAIN: (360, 480)
  MIN_SIZE_TEST: 360
  CROP:
    ENABLED: False
    TYPE: "absolute_range"
    SIZE: (600, 720)
  FORMAT: "RGB"
  COLOR_AUG_SSD: False
  PSEUDO:
    SAMPLING_FRAME_NUM: 4
    SAMPLING_FRAME_RANGE: 20
    AUGMENTATIONS: ["rotation"]
    MIN_SIZE_TRAIN: (288, 320, 352)
    MAX_SIZE_TRAIN: 768
    CROP:
      ENABLED: True
      TYPE: "absolute_range"
      SIZE: (384, 600)
TEST:
  EVAL_PERIOD: 0
DATALOADER:
  FILTER_EMPTY_ANNOTATIONS: False
  NUM_WORKERS: 4
VERSION: 2
"""

SWIN = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: "MaskFreeVIS"
  BACKBONE:
    NAME: "D2SwinTransformer"
  SWIN:
    EMBED_DIM: 16
    DEPTHS: [1, 1, 1, 1]
    NUM_HEADS: [1, 2, 4, 8]
    WINDOW_SIZE: 4
    APE: False
    DROP_PATH_RATE: 0.3
    PATCH_NORM: True
    PRETRAIN_IMG_SIZE: 64
"""


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "family.yaml").write_text(FAMILY)
    cfg = msr_d2.get_cfg()
    cfg.merge_from_file(str(tmp_path / "family.yaml"), allow_unsafe=False)
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "MaskFreeVIS", "MODEL.DEVICE", "cpu"])
    return cfg


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_trains_a_step(cfg, supervision):
    cfg.MODEL.MASK_FREE.SUPERVISION = supervision
    torch.manual_seed(0)
    model = build_model(cfg)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(cfg, model)
    with EventStorage():
        losses = model(tiny_clips(supervision, num_clips=2, num_frames=2))
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    changed = [not torch.equal(p, b) for p, b in zip(model.parameters(), before)]
    assert sum(changed) > 0.9 * len(changed)
    names = {"box": "loss_mask_proj", "mask": "loss_dice"}
    # The last output, and two auxiliary ones of DEC_LAYERS 3.
    expected = {names[supervision] + suffix for suffix in ("", "_0", "_1")}
    assert {name for name in losses if name.startswith(names[supervision])} == expected
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_predicts(cfg):
    model = build_model(cfg).eval()
    item = tiny_clips(num_clips=1, num_frames=4)[0]
    del item["instances"]
    with torch.no_grad():
        (output,) = model([item])
    assert len(output["scores"]) == len(output["masks"]) == 10
    assert all(len(track) == 4 for track in output["masks"])


def test_swin_keys_merge(cfg, tmp_path):
    pytest.importorskip("timm")
    (tmp_path / "swin.yaml").write_text(SWIN)
    cfg.merge_from_file(str(tmp_path / "swin.yaml"), allow_unsafe=False)
    model = build_model(cfg)
    with EventStorage():
        losses = model(tiny_clips(num_clips=1, num_frames=2))
    assert torch.isfinite(sum(losses.values()))
