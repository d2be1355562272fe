"""ImageNet ResNets of torchvision as backbones."""

import pytest
import torch
import torchvision
from detectron2.modeling import build_model

from msr_d2.checkpoint import convert_state_dict
from msr_d2.checkpoint.convert import model_state_shapes
from msr_d2.testing import tiny_cfg


def fpn_cfg(depth):
    cfg = tiny_cfg("fpn")
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = depth, "FrozenBN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    return cfg


def randomised(depth):
    torch.manual_seed(0)
    resnet = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    for name, buffer in resnet.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return resnet


@pytest.mark.parametrize("depth", [18, 50])
def test_features_are_equal(depth):
    cfg, resnet = fpn_cfg(depth), randomised(depth)
    report = convert_state_dict(resnet.state_dict(), None, model_state_shapes(cfg))
    report.check()
    assert report.source == "torchvision" and not report.unused
    assert all(name.startswith("backbone.bottom_up.") for name in report.state_dict)
    model = build_model(cfg).eval()
    model.load_state_dict(report.state_dict, strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone.bottom_up(image)
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))
        for stage in range(1, 5):
            x = getattr(resnet, f"layer{stage}")(x)
            torch.testing.assert_close(features[f"res{stage + 1}"], x, rtol=1e-4, atol=1e-4)


def test_another_depth_is_refused():
    state = randomised(18).state_dict()
    with pytest.raises(ValueError):
        convert_state_dict(state, None, model_state_shapes(fpn_cfg(50))).check()
