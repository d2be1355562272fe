import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from msr_d2.config import get_cfg
from msr_d2.layers.position_encoding import sine_position_2d, sine_position_3d
from msr_d2.mask_free_vis import transformer_decoder as module
from msr_d2.mask_free_vis.heads import MaskFormerHead
from msr_d2.mask_free_vis.transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
    VideoMultiScaleMaskedTransformerDecoder,
    resize_mask_features,
)

CLASSES, QUERIES, WIDTH, HEADS = 5, 7, 16, 4
SIZES = [(2, 3), (4, 6), (8, 12)]
SMALL = (16, 24)


def decoder(in_channels=WIDTH, **settings):
    defaults = {
        "num_classes": CLASSES,
        "hidden_dim": WIDTH,
        "num_queries": QUERIES,
        "num_heads": HEADS,
        "dim_feedforward": 24,
        "num_layers": 4,
        "mask_dim": 12,
    }
    torch.manual_seed(0)
    model = VideoMultiScaleMaskedTransformerDecoder(in_channels, **{**defaults, **settings})
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model


def inputs(frames, channels=WIDTH, mask_dim=12):
    generator = torch.Generator().manual_seed(1)
    multi_scale = [torch.randn(frames, channels, *s, generator=generator) for s in SIZES]
    return multi_scale, torch.randn(frames, mask_dim, *SMALL, generator=generator)


def attention_of_torch(ours):
    reference = nn.MultiheadAttention(WIDTH, HEADS)
    reference.load_state_dict(ours.state_dict())
    return reference


def direct(model, multi_scale, mask_features, frames):
    """The decoder written out with torch's attention and masks repeated for the heads.

    Queries and keys come first, clips second.
    """
    clips = len(mask_features) // frames
    mask_features = mask_features.view(clips, frames, *mask_features.shape[1:])
    keys, values = [], []
    for index, x in enumerate(multi_scale):
        x = x.view(clips, frames, *x.shape[1:]) + model.level_embed.weight[index][:, None, None]
        position = sine_position_3d((frames, *x.shape[-2:]), WIDTH)
        for store, y in ((keys, x + position), (values, x)):
            store.append(y.permute(1, 3, 4, 0, 2).flatten(0, 2))
    output = model.query_feat.weight[:, None].repeat(1, clips, 1)
    embed = model.query_embed.weight[:, None]
    outputs = []

    def heads(size):
        normed = model.decoder_norm(output).transpose(0, 1)
        masks = torch.einsum("bqc,btchw->bqthw", model.mask_embed(normed), mask_features)
        outputs.append((model.class_embed(normed), masks))
        small = F.interpolate(masks.flatten(0, 1), size, mode="bilinear", align_corners=False)
        blocked = small.view(clips, 1, QUERIES, -1).sigmoid() < 0.5
        blocked = blocked.repeat(1, HEADS, 1, 1).flatten(0, 1)
        blocked[blocked.all(-1)] = False
        return blocked

    for index in range(len(model.transformer_ffn_layers)):
        level = index % 3
        blocked = heads(SIZES[level])
        layer = model.transformer_cross_attention_layers[index]
        attention = attention_of_torch(layer.multihead_attn)
        attended = attention(output + embed, keys[level], values[level], attn_mask=blocked)[0]
        output = layer.norm(output + attended)
        layer = model.transformer_self_attention_layers[index]
        attention = attention_of_torch(layer.self_attn)
        query = output + embed
        output = layer.norm(output + attention(query, query, output)[0])
        layer = model.transformer_ffn_layers[index]
        output = layer.norm(output + layer.linear2(F.relu(layer.linear1(output))))
    heads(SIZES[0])
    return outputs


def all_outputs(result):
    return [*result["aux_outputs"], result]


@pytest.mark.parametrize("clips, frames", [(1, 1), (2, 3)])
def test_equals_the_direct_form(clips, frames):
    model, (multi_scale, mask_features) = decoder(), inputs(clips * frames)
    result = model(multi_scale, mask_features, frames)
    expected = direct(model, multi_scale, mask_features, frames)
    assert len(expected) == len(all_outputs(result)) == 5
    for found, (classes, masks) in zip(all_outputs(result), expected):
        torch.testing.assert_close(found["pred_logits"], classes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["pred_masks"], masks, rtol=1e-4, atol=1e-4)
    assert result["pred_logits"].shape == (clips, QUERIES, CLASSES + 1)
    assert result["pred_masks"].shape == (clips, QUERIES, frames, *SMALL)


def test_queries_alone_equal_the_last_output():
    frames = 3
    model, (multi_scale, mask_features) = decoder(), inputs(2 * frames)
    expected = model(multi_scale, mask_features, frames)
    resized = resize_mask_features(mask_features, SIZES)
    classes, embed = model.queries(multi_scale, resized, frames)
    masks = torch.einsum("bqc,btchw->bqthw", embed, mask_features.unflatten(0, (2, frames)))
    torch.testing.assert_close(classes, expected["pred_logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(masks, expected["pred_masks"], rtol=1e-4, atol=1e-4)


def test_queries_never_make_full_masks(monkeypatch):
    model, (multi_scale, mask_features) = decoder(), inputs(2)
    sizes, mask_logits = [], module._mask_logits
    monkeypatch.setattr(
        module, "_mask_logits", lambda e, f: sizes.append(tuple(f.shape[-2:])) or mask_logits(e, f)
    )
    model.queries(multi_scale, resize_mask_features(mask_features, SIZES), 2)
    assert sizes == [SIZES[0], SIZES[1], SIZES[2], SIZES[0]]


def test_clips_of_a_batch_are_independent():
    model, (multi_scale, mask_features) = decoder().eval(), inputs(6)
    whole = model(multi_scale, mask_features, 3)
    for clip in range(2):
        part = slice(3 * clip, 3 * clip + 3)
        alone = model([x[part] for x in multi_scale], mask_features[part], 3)
        for found, expected in zip(all_outputs(alone), all_outputs(whole)):
            for key in ("pred_logits", "pred_masks"):
                close = {"rtol": 1e-4, "atol": 1e-4}
                torch.testing.assert_close(found[key][0], expected[key][clip], **close)


def test_frames_of_a_clip_see_each_other():
    model, (multi_scale, mask_features) = decoder(), inputs(2)
    before = model(multi_scale, mask_features, 2)["pred_masks"]
    changed = [x.clone() for x in multi_scale]
    for x in changed:
        x[1] += 1
    after = model(changed, mask_features, 2)["pred_masks"]
    assert not torch.allclose(before[:, :, 0], after[:, :, 0], atol=1e-3)


def test_one_frame_is_an_image(monkeypatch):
    """The image model has positions in the image only; the rest is the same."""
    model, (multi_scale, mask_features) = decoder(), inputs(2)
    clip = model(multi_scale, mask_features, 1)

    def image_keys(memory):
        return memory.values + sine_position_2d(memory.size, WIDTH).flatten(1).T

    monkeypatch.setattr(module._Memory, "keys", image_keys)
    image = model(multi_scale, mask_features, 1)
    for key in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(clip[key], image[key], rtol=1e-4, atol=1e-4)


def test_queries_look_inside_of_their_masks():
    """Logits of two frames: a mask in the second, none at all, and zero, which is inside."""
    masks = torch.full((2, 3, 1, 2), -1.0)
    masks[1, 0, 0, 1] = 2.0
    masks[0, 2, 0, 0] = 0.0
    allowed = module._allowed(masks, num_frames=2)
    assert allowed.shape == (1, 1, 3, 4)
    assert allowed[0, 0].int().tolist() == [[0, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]]


def test_masks_do_not_learn_through_attention():
    """Only the last output is used: masks that only steered attention give no gradient."""
    model, (multi_scale, mask_features) = decoder(), inputs(2)
    mask_features.requires_grad_()
    model(multi_scale, mask_features, 2)["pred_logits"].sum().backward()
    assert mask_features.grad is None or not mask_features.grad.count_nonzero()


def test_every_parameter_learns():
    model, (multi_scale, mask_features) = decoder(), inputs(2)
    result = model(multi_scale, mask_features, 2)
    loss = sum(x["pred_logits"].square().mean() for x in all_outputs(result))
    (loss + sum(x["pred_masks"].square().mean() for x in all_outputs(result))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.count_nonzero(), name


def test_no_layers_predict_from_the_learned_queries():
    model, (multi_scale, mask_features) = decoder(num_layers=0), inputs(2)
    result = model(multi_scale, mask_features, 2)
    assert result["aux_outputs"] == []
    expected = model.class_embed(model.decoder_norm(model.query_feat.weight))
    torch.testing.assert_close(result["pred_logits"][0], expected)


@pytest.mark.parametrize("channels, enforce, keys", [(16, False, 0), (16, True, 6), (8, False, 6)])
def test_maps_are_projected_where_needed(channels, enforce, keys):
    model = decoder(channels, enforce_input_proj=enforce)
    assert sum(name.startswith("input_proj") for name in model.state_dict()) == keys
    multi_scale, mask_features = inputs(2, channels)
    assert model(multi_scale, mask_features, 2)["pred_masks"].isfinite().all()


def test_autocast():
    model, (multi_scale, mask_features) = decoder(), inputs(4)
    expected = model(multi_scale, mask_features, 2)["aux_outputs"][0]["pred_masks"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(multi_scale, mask_features, 2)["aux_outputs"][0]["pred_masks"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.2)


def test_widths_that_do_not_fit():
    with pytest.raises(ValueError, match="divisible by 4, not 30"):
        decoder(hidden_dim=30)
    with pytest.raises(ValueError, match="16 channels among 3 heads"):
        decoder(num_heads=3)


def small_cfg():
    cfg = get_cfg()
    head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    head.IN_FEATURES, head.NORM, head.COMMON_STRIDE = ["res2", "res3", "res4", "res5"], "GN", 4
    head.NUM_CLASSES, head.CONVS_DIM, head.MASK_DIM = CLASSES, 64, 32
    head.TRANSFORMER_ENC_LAYERS, former.DEC_LAYERS, former.HIDDEN_DIM = 1, 3, 64
    former.NUM_OBJECT_QUERIES, former.DIM_FEEDFORWARD = QUERIES, 32
    return cfg


SHAPE = {f"res{i}": ShapeSpec(channels=4 * i, stride=2**i) for i in range(2, 6)}


def test_head_from_a_small_config():
    head = MaskFormerHead(small_cfg(), SHAPE)
    features = {
        name: torch.randn(4, s.channels, 64 // s.stride, 96 // s.stride)
        for name, s in SHAPE.items()
    }
    result = head(features, 2)
    assert result["pred_logits"].shape == (2, QUERIES, CLASSES + 1)
    assert result["pred_masks"].shape == (2, QUERIES, 2, 16, 24)
    assert len(result["aux_outputs"]) == 2  # DEC_LAYERS 3 are two layers, and one output before
    assert len(head.predictor.transformer_ffn_layers) == 2


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("encoder, decoder, project", [(1, 2, False), (1, 4, True), (2, 3, False)])
def test_every_parameter_of_the_smallest_models_has_a_gradient(encoder, decoder, project, deep):
    """Otherwise distributed training stops; also without losses of the earlier outputs."""
    cfg = small_cfg()
    former = cfg.MODEL.MASK_FORMER
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = encoder
    former.DEC_LAYERS, former.ENFORCE_INPUT_PROJ = decoder, project
    head = MaskFormerHead(cfg, SHAPE)
    features = {
        name: torch.randn(2, s.channels, 64 // s.stride, 64 // s.stride)
        for name, s in SHAPE.items()
    }
    result = head(features, 2)
    outputs = [result, *(result["aux_outputs"] if deep else [])]
    sum(x["pred_logits"].sum() + x["pred_masks"].sum() for x in outputs).backward()
    missing = [name for name, x in head.named_parameters() if x.grad is None]
    assert not missing


def test_defaults_have_all_layers():
    assert get_cfg().MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS == 6


def test_head_takes_the_name_of_the_image_model():
    cfg = small_cfg()
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    head = MaskFormerHead(cfg, SHAPE)
    assert isinstance(head.predictor, VideoMultiScaleMaskedTransformerDecoder)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.MASK_FORMER.PRE_NORM", True, "PRE_NORM is True"),
        ("MODEL.MASK_FORMER.DEC_LAYERS", 1, "DEC_LAYERS is 1.*at least 2"),
        ("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "DEC_LAYERS is 3.*at least 4.*projected"),
        ("MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True, "DEC_LAYERS is 3.*at least 4.*projected"),
        ("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 0, "TRANSFORMER_ENC_LAYERS is 0"),
        ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5", "TRANSFORMER_IN_FEATURE 'res5'"),
        ("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "X", "DECODER_NAME 'X' is unknown.*Video"),
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "X", "PIXEL_DECODER_NAME 'X' is unknown.*MSDe"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res3", "p6"], r"IN_FEATURES names \['p6'\]"),
        ("MODEL.SEM_SEG_HEAD.CONVS_DIM", 40, "CONVS_DIM 40"),
    ],
)
def test_configs_that_do_not_fit(key, value, message):
    cfg = small_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        MaskFormerHead(cfg, SHAPE)


def test_registry_has_both_names():
    assert {name for name, _ in TRANSFORMER_DECODER_REGISTRY} >= {
        "VideoMultiScaleMaskedTransformerDecoder",
        "MultiScaleMaskedTransformerDecoder",
    }
