import sys
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from torch.nn import functional as F
from torchvision.models import swin_transformer as torchvision_swin

from msr_d2.config import get_cfg
from msr_d2.modeling import swin_blocks
from msr_d2.modeling.swin import D2SwinTransformer

timm_swin = pytest.importorskip("timm.models.swin_transformer")

SMALL = {"embed_dim": 8, "depths": (2, 2, 3, 2), "num_heads": (1, 2, 4, 8), "window_size": 2}


def swin(**settings):
    torch.manual_seed(0)
    model = D2SwinTransformer(**{**SMALL, **settings})
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def timm_model(size):
    torch.manual_seed(1)
    model = timm_swin.SwinTransformer(img_size=size, num_classes=0, drop_path_rate=0, **SMALL)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def test_equals_timm_with_its_weights():
    """Whole windows and maps larger than a window: there both pad and shift alike."""
    reference, model = timm_model(128), swin()
    state = reference.state_dict()
    norms = {k: v for k, v in model.state_dict().items() if k.startswith("norm")}
    incompatible = model.load_state_dict({**state, **norms}, strict=False)
    assert not incompatible.missing_keys
    assert incompatible.unexpected_keys == ["norm.weight", "norm.bias"]
    images = torch.randn(2, 3, 128, 128)
    found = model(images)
    x = reference.patch_embed(images)
    for index, (name, stage) in enumerate(zip(("res2", "res3", "res4", "res5"), reference.layers)):
        x = stage(x)
        norm = getattr(model, f"norm{index}")
        expected = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias).permute(0, 3, 1, 2)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 12), (9, 14), (5, 7)])
def test_block_equals_torchvision(size, shift):
    """Maps that are no multiple of the window are padded first and shifted then."""
    torch.manual_seed(0)
    reference = torchvision_swin.SwinTransformerBlock(8, 2, [4, 4], [shift, shift])
    block = swin_blocks.Block(swin_blocks.timm_parts(), 8, 2, 4, shift, 0.0, _settings())
    names = {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            parameter.copy_(reference.get_parameter(name).normal_(std=0.3))
    x = torch.randn(2, *size, 8)
    mask = swin_blocks.shift_mask(size, 4, x.device)
    torch.testing.assert_close(block(x, mask), reference(x), rtol=1e-4, atol=1e-4)


def _settings():
    model = {"qkv_bias": True, "dropout": 0.0, "attention_dropout": 0.0, "mlp_ratio": 4.0}
    return SimpleNamespace(**model)


def test_windows_are_shifted_on_maps_of_one_window_too():
    """The quarters of such a map do not see each other in the shifted block."""
    block = swin_blocks.Block(swin_blocks.timm_parts(), 8, 2, 4, 2, 0.0, _settings())
    x = torch.randn(1, 4, 4, 8)
    changed = x.clone()
    changed[0, 0, 0] += torch.randn(8)
    mask = swin_blocks.shift_mask((4, 4), 4, x.device)
    moved = (block(changed, mask) - block(x, mask)).abs().amax(-1)[0] > 1e-6
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:2, :2] = True
    assert torch.equal(moved, expected)


def test_any_size_and_strides():
    model = swin()
    outputs = model(torch.randn(1, 3, 70, 98))
    sizes = {name: tuple(x.shape[1:]) for name, x in outputs.items()}
    assert sizes == {
        "res2": (8, 18, 25),
        "res3": (16, 9, 13),
        "res4": (32, 5, 7),
        "res5": (64, 3, 4),
    }
    shapes = model.output_shape()
    assert {k: (s.channels, s.stride) for k, s in shapes.items()} == {
        "res2": (8, 4),
        "res3": (16, 8),
        "res4": (32, 16),
        "res5": (64, 32),
    }
    assert model.size_divisibility == 32


def test_frames_are_independent():
    model, images = swin(), torch.randn(3, 3, 64, 96)
    whole = model(images)["res5"]
    alone = torch.cat([model(image[None])["res5"] for image in images])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_nothing():
    images, grads = torch.randn(1, 3, 64, 64), []
    for use_checkpoint in (False, True):
        model = swin(use_checkpoint=use_checkpoint, drop_path_rate=0.0).train()
        sum(x.square().mean() for x in model(images).values()).backward()
        grads.append([p.grad for p in model.parameters()])
    for x, y in zip(*grads):
        torch.testing.assert_close(x, y)


def test_some_outputs():
    model = swin(out_features=["res5", "res3"])
    assert list(model(torch.randn(1, 3, 32, 32))) == ["res3", "res5"]
    assert not hasattr(model, "norm0") and list(model.output_shape()) == ["res3", "res5"]


def test_buffers_of_checkpoints():
    """Masks are dropped, and the index of positions may be missing or of another model."""
    model = swin()
    state = model.state_dict()
    index = "layers.0.blocks.0.attn.relative_position_index"
    assert state[index].shape == (4, 4) and state[index].dtype == torch.int64
    expected = state[index].clone()
    for change in ({index: torch.zeros(9, 9).long()}, {"layers.0.blocks.1.attn_mask": expected}):
        model.load_state_dict({**state, **change})
        assert torch.equal(model.state_dict()[index], expected)
    model.load_state_dict({k: v for k, v in state.items() if not k.endswith("index")})


def test_from_config():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.SWIN.EMBED_DIM = "D2SwinTransformer", 12
    cfg.MODEL.SWIN.WINDOW_SIZE, cfg.MODEL.SWIN.DROP_PATH_RATE = 5, 0.5
    model = build_backbone(cfg)
    assert model.output_shape()["res5"].channels == 96
    assert model.layers[2].blocks[5].window == 5 and model.layers[2].blocks[5].shift == 2
    assert model.layers[3].blocks[1].drop_path.drop_prob == pytest.approx(0.5)
    assert isinstance(model.layers[0].blocks[0].drop_path, torch.nn.Identity)
    cfg.MODEL.SWIN.APE = True
    with pytest.raises(ValueError, match="MODEL.SWIN.APE True"):
        build_backbone(cfg)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"out_features": ["res6"]}, "OUT_FEATURES"),
        ({"depths": (2, 2)}, "need 4 numbers"),
        ({"num_heads": (3, 2, 4, 8)}, "3 heads cannot share the 8 channels of stage 0"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        swin(**settings)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    with pytest.raises(ImportError, match="pip install timm"):
        swin()


def test_name_is_registered():
    assert "D2SwinTransformer" in BACKBONE_REGISTRY
