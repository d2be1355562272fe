import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone, build_model
from torch import nn

from msr_d2.config import get_cfg
from msr_d2.mask_free_vis.heads import MaskFormerHead
from msr_d2.mask_free_vis.state_dict import adapt_state_dict

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def family_cfg(depth=50, classes=40, queries=100):
    """The sizes of the published models."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "MaskFreeVIS"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_resnet_backbone", 0
    resnet, head = cfg.MODEL.RESNETS, cfg.MODEL.SEM_SEG_HEAD
    resnet.DEPTH, resnet.STRIDE_IN_1X1 = depth, False
    resnet.OUT_FEATURES = head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    head.NUM_CLASSES, head.CONVS_DIM, head.NORM, head.COMMON_STRIDE = classes, 256, "GN", 4
    head.TRANSFORMER_ENC_LAYERS = 6
    cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = queries
    return cfg


class Criterion(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("empty_weight", torch.ones(classes + 1))


class Parts(nn.Module):
    """What has weights in the video model, without the rest."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.sem_seg_head = MaskFormerHead(cfg, self.backbone.output_shape())
        self.criterion = Criterion(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        self._register_load_state_dict_pre_hook(adapt_state_dict)


def resnet_table(depth):
    def conv(name, *shape):
        norm = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.weight": shape, **{f"{name}.norm.{k}": shape[:1] for k in norm}}

    table = conv("stem.conv1", 64, 3, 7, 7)
    for stage, blocks in enumerate(BLOCKS[depth]):
        middle, out = 64 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            before = out if block else (out // 2 if stage else 64)
            prefix = f"res{stage + 2}.{block}."
            table.update(conv(prefix + "conv1", middle, before, 1, 1))
            table.update(conv(prefix + "conv2", middle, middle, 3, 3))
            table.update(conv(prefix + "conv3", out, middle, 1, 1))
            if not block:
                table.update(conv(prefix + "shortcut", out, before, 1, 1))
    return {"backbone." + key: shape for key, shape in table.items()}


def both(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def pixel_decoder_table(channels):
    table = {"transformer.level_embed": (3, 256), **both("mask_features", 256, 256, 1, 1)}
    for index, channels_in in enumerate(reversed(channels[1:])):
        table.update(both(f"input_proj.{index}.0", 256, channels_in, 1, 1))
        table.update(both(f"input_proj.{index}.1", 256))
    for layer in range(6):
        prefix = f"transformer.encoder.layers.{layer}."
        for name, shape in {
            "self_attn.sampling_offsets": (192, 256),
            "self_attn.attention_weights": (96, 256),
            "self_attn.value_proj": (256, 256),
            "self_attn.output_proj": (256, 256),
            "linear1": (1024, 256),
            "linear2": (256, 1024),
            "norm1": (256,),
            "norm2": (256,),
        }.items():
            table.update(both(prefix + name, *shape))
    table["adapter_1.weight"], table["layer_1.weight"] = (256, channels[0], 1, 1), (256, 256, 3, 3)
    table.update({**both("adapter_1.norm", 256), **both("layer_1.norm", 256)})
    return {"sem_seg_head.pixel_decoder." + key: shape for key, shape in table.items()}


def predictor_table(classes, queries):
    table = {"level_embed.weight": (3, 256), **both("decoder_norm", 256)}
    for name in ("query_feat", "query_embed"):
        table[name + ".weight"] = (queries, 256)
    table.update(both("class_embed", classes + 1, 256))
    for layer in range(3):
        table.update(both(f"mask_embed.layers.{layer}", 256, 256))
    for layer in range(9):
        for kind, name in (("self", "self_attn"), ("cross", "multihead_attn")):
            prefix = f"transformer_{kind}_attention_layers.{layer}."
            table[f"{prefix}{name}.in_proj_weight"] = (768, 256)
            table[f"{prefix}{name}.in_proj_bias"] = (768,)
            table.update(
                {**both(f"{prefix}{name}.out_proj", 256, 256), **both(prefix + "norm", 256)}
            )
        prefix = f"transformer_ffn_layers.{layer}."
        table.update({**both(prefix + "linear1", 2048, 256), **both(prefix + "norm", 256)})
        table.update(both(prefix + "linear2", 256, 2048))
    return {"sem_seg_head.predictor." + key: shape for key, shape in table.items()}


def swin_table(width, depths, heads, window):
    table = {**both("patch_embed.proj", width, 3, 4, 4), **both("patch_embed.norm", width)}
    for stage, (depth, head) in enumerate(zip(depths, heads)):
        c = width * 2**stage
        table.update(both(f"norm{stage}", c))
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}."
            shapes = {"norm1": (c,), "norm2": (c,), "attn.qkv": (3 * c, c), "attn.proj": (c, c)}
            shapes.update({"mlp.fc1": (4 * c, c), "mlp.fc2": (c, 4 * c)})
            for name, shape in shapes.items():
                table.update(both(prefix + name, *shape))
            prefix += "attn.relative_position_"
            table[prefix + "bias_table"] = ((2 * window - 1) ** 2, head)
            table[prefix + "index"] = (window**2, window**2)
        if stage < 3:
            table[f"layers.{stage}.downsample.reduction.weight"] = (2 * c, 4 * c)
            table.update(both(f"layers.{stage}.downsample.norm", 4 * c))
    return {"backbone." + key: shape for key, shape in table.items()}


def swin_l_cfg():
    pytest.importorskip("timm")
    cfg = family_cfg(queries=200)
    cfg.MODEL.BACKBONE.NAME, swin = "D2SwinTransformer", cfg.MODEL.SWIN
    swin.EMBED_DIM, swin.DEPTHS, swin.NUM_HEADS = 192, [2, 2, 18, 2], [6, 12, 24, 48]
    swin.WINDOW_SIZE = 12
    return cfg


RESNET_CHANNELS, SWIN_CHANNELS = (256, 512, 1024, 2048), (192, 384, 768, 1536)


# The published numbers of tensors of R-101 (814) and Swin-L (651) count the official counter too.
@pytest.mark.parametrize(
    "make_cfg, backbone, channels, tensors, parameters",
    [
        (family_cfg, resnet_table(50), RESNET_CHANNELS, 558, 43_959_977),
        (lambda: family_cfg(classes=80), resnet_table(50), RESNET_CHANNELS, 558, 43_970_257),
        (lambda: family_cfg(101), resnet_table(101), RESNET_CHANNELS, 814 - 1, 62_899_881),
        (
            swin_l_cfg,
            swin_table(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
            SWIN_CHANNELS,
            651 - 1,
            215_511_709,
        ),
    ],
    ids=["R-50", "R-50 of COCO", "R-101", "Swin-L"],
)
def test_keys_and_shapes_of_published_models(make_cfg, backbone, channels, tensors, parameters):
    cfg = make_cfg()
    with torch.device("meta"):
        model = Parts(cfg)
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    expected = {
        **backbone,
        **pixel_decoder_table(channels),
        **predictor_table(classes, cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES),
        "criterion.empty_weight": (classes + 1,),
    }
    assert {key: tuple(x.shape) for key, x in model.state_dict().items()} == expected
    assert len(expected) == tensors
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_model_itself_has_these_keys():
    cfg = family_cfg()
    cfg.MODEL.DEVICE = "cpu"
    expected = {
        **resnet_table(50),
        **pixel_decoder_table(RESNET_CHANNELS),
        **predictor_table(40, 100),
        "criterion.empty_weight": (41,),
    }
    found = {key: tuple(x.shape) for key, x in build_model(cfg).state_dict().items()}
    assert found == expected


def tiny_cfg(classes=2):
    cfg = family_cfg(classes=classes, queries=3)
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    head.CONVS_DIM = head.MASK_DIM = former.HIDDEN_DIM = 32
    head.TRANSFORMER_ENC_LAYERS, former.DEC_LAYERS, former.DIM_FEEDFORWARD = 1, 2, 8
    head.TRANSFORMER_ENC_DIM_FEEDFORWARD = 8
    return cfg


def first_generation(state):
    old = {}
    for key, value in state.items():
        key = key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.")
        old[key.replace("query_feat", "static_query")] = value
    return old


def randomised(state):
    return {key: torch.randn_like(x) if x.is_floating_point() else x for key, x in state.items()}


@pytest.mark.parametrize("change", [lambda state: state, first_generation])
def test_both_generations_load(change):
    model = Parts(tiny_cfg())
    weights = randomised(model.state_dict())
    checkpoint = change({**weights, "criterion._iter": torch.zeros(1)})
    assert (checkpoint.keys() - weights.keys() == {"criterion._iter"}) == (
        change is not first_generation
    )
    incompatible = model.load_state_dict(copy.copy(checkpoint), strict=True)
    assert not incompatible.missing_keys and not incompatible.unexpected_keys
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key


@pytest.mark.parametrize("change", [lambda state: state, first_generation])
def test_checkpointer_drops_the_class_layer_of_coco_only(change, tmp_path):
    coco, model = Parts(tiny_cfg(classes=5)), Parts(tiny_cfg())
    weights = randomised(coco.state_dict())
    torch.save({"model": change(weights)}, tmp_path / "coco.pth")
    before = model.sem_seg_head.predictor.class_embed.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / "coco.pth"))
    classifier = ("sem_seg_head.predictor.class_embed.", "criterion.empty_weight")
    for key, value in model.state_dict().items():
        if not key.startswith(classifier):
            assert torch.equal(value, weights[key]), key
    assert torch.equal(model.sem_seg_head.predictor.class_embed.weight, before)


def test_applied_twice_and_with_a_prefix():
    old = {
        "m.sem_seg_head.transformer.level_embed": 1,
        "m.sem_seg_head.pixel_decoder.adapter_1.weight": 2,
        "m.sem_seg_head.layer_1.norm.bias": 3,
        "m.sem_seg_head.predictor.static_query.weight": 4,
        "m.sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias": 5,
        "m.criterion._iter": 6,
        "m.backbone.layers.0.downsample.norm.bias": 7,
    }
    expected = {
        "m.sem_seg_head.pixel_decoder.transformer.level_embed": 1,
        "m.sem_seg_head.pixel_decoder.adapter_1.weight": 2,
        "m.sem_seg_head.pixel_decoder.layer_1.norm.bias": 3,
        "m.sem_seg_head.predictor.query_feat.weight": 4,
        "m.sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias": 5,
        "m.backbone.layers.0.downsample.norm.bias": 7,
    }
    for _ in range(2):
        adapt_state_dict(old, "m.")
        assert old == expected


def test_imagenet_weights_of_swin_get_their_prefix():
    bare = {
        "patch_embed.proj.weight": 1,
        "layers.0.blocks.0.norm1.weight": 2,
        "layers.0.downsample.reduction.weight": 3,
        "norm.weight": 4,
        "head.bias": 5,
    }
    adapt_state_dict(bare)
    assert bare == {
        "backbone.patch_embed.proj.weight": 1,
        "backbone.layers.0.blocks.0.norm1.weight": 2,
        "backbone.layers.0.downsample.reduction.weight": 3,
    }


def test_other_models_are_left_alone():
    state = {"backbone.res2.0.conv1.weight": 1, "norm.weight": 2, "roi_heads.layer_1.weight": 3}
    expected = dict(state)
    adapt_state_dict(state)
    assert state == expected
