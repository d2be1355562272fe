import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.backbone import build_resnet_backbone

from msr_d2.modeling import (
    DeformableBottleneckBlock,
    build_deformable_resnet_backbone,
    check_deformable_config,
)
from msr_d2.testing import tiny_cfg

IMAGE = ShapeSpec(channels=3)


def resnet_cfg(depth=50, stages=(False, True, False, True), modulated=False):
    cfg = tiny_cfg("c4")
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4", "res5"]
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = list(stages)
    cfg.MODEL.RESNETS.DEFORM_MODULATED = modulated
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    return cfg


@pytest.mark.parametrize("modulated", [False, True])
def test_without_offsets_it_is_an_ordinary_resnet(modulated):
    deformable = build_deformable_resnet_backbone(resnet_cfg(modulated=modulated), IMAGE).eval()
    plain = build_resnet_backbone(resnet_cfg(stages=[False] * 4), IMAGE).eval()
    left_over = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not left_over.unexpected_keys
    assert all("conv2_offset" in key for key in left_over.missing_keys)
    blocks = [m for m in deformable.modules() if isinstance(m, DeformableBottleneckBlock)]
    assert len(blocks) == 4 + 3  # res3 and res5
    if modulated:  # a modulation of sigmoid(0) halves the response, undo it
        for block in blocks:
            block.conv2.weight.data *= 2
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = plain(image), deformable(image)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4)


def test_offset_moves_what_is_sampled():
    block = DeformableBottleneckBlock(4, 4, bottleneck_channels=4, norm="")
    x = torch.randn(1, 4, 9, 9)
    block.conv2_offset.bias.data[1::2] = 1.0  # offsets are (y, x): one pixel to the right
    moved = block._deformable_conv(x)
    with torch.no_grad():
        still = torch.nn.functional.conv2d(x, block.conv2.weight, padding=1)
    torch.testing.assert_close(moved[..., 1:-1, 1:-2], still[..., 1:-1, 2:-1])


def test_every_parameter_gets_a_gradient_and_frozen_stages_stay_frozen():
    cfg = resnet_cfg(stages=(True, True, True, True))
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    backbone = build_deformable_resnet_backbone(cfg, IMAGE)
    sum(x.sum() for x in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    assert not any(p.requires_grad for p in backbone.res2.parameters())
    trained = [p for p in backbone.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None for p in trained)


def test_fpn_model_by_config():
    cfg = tiny_cfg("fpn", opts=["MODEL.BACKBONE.NAME", "build_deformable_resnet_fpn_backbone"])
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, True, True, True]
    with pytest.raises(ValueError, match="DEPTH 18"):
        build_model(cfg)
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 50, 32
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    names = dict(build_model(cfg).named_parameters())
    assert "backbone.bottom_up.res3.0.conv2_offset.weight" in names
    assert "backbone.bottom_up.res2.0.conv2_offset.weight" not in names


def test_missing_operators_are_named_with_the_cure(monkeypatch):
    cfg = tiny_cfg("fpn")
    check_deformable_config(cfg)
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, True, True, True]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="build_deformable_resnet_fpn_backbone"):
        check_deformable_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_deformable_resnet_fpn_backbone"
    check_deformable_config(cfg)
