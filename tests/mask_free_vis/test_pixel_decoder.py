import pytest
import torch
from detectron2.layers import ShapeSpec
from torch.nn import functional as F

from msr_d2.benchmark.deformable_attention_reference import stacked_deformable_attention
from msr_d2.layers.position_encoding import sine_position_2d
from msr_d2.mask_free_vis import pixel_decoder as module
from msr_d2.mask_free_vis.pixel_decoder import MSDeformAttnPixelDecoder

CHANNELS = {"res2": 4, "res3": 6, "res4": 8, "res5": 10}
SHAPE = {
    name: ShapeSpec(channels=channels, stride=4 * 2**i)
    for i, (name, channels) in enumerate(CHANNELS.items())
}
ENCODER = ["res3", "res4", "res5"]


def decoder(**settings):
    defaults = {
        "conv_dim": 32,
        "mask_dim": 12,
        "transformer_in_features": ENCODER,
        "transformer_layers": 2,
        "transformer_heads": 4,
        "transformer_hidden_dim": 16,
    }
    torch.manual_seed(0)
    model = MSDeformAttnPixelDecoder(SHAPE, **{**defaults, **settings})
    for parameter in model.parameters():  # offsets and weights start at zero
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model


def features(frames=2, size=(64, 96), dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(
            frames, s.channels, size[0] // s.stride, size[1] // s.stride, generator=generator
        ).to(dtype)
        for name, s in SHAPE.items()
    }


def direct(model, maps):
    """The decoder written out: maps concatenated, stacked samples, additions, one FPN step."""
    projected = [
        project(maps[name]) for project, name in zip(model.input_proj, ["res5", "res4", "res3"])
    ]
    shapes = [tuple(x.shape[-2:]) for x in projected]
    tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in projected], 1)
    positions = torch.cat(
        [
            sine_position_2d(shape, 32).flatten(1).T + embed
            for shape, embed in zip(shapes, model.transformer.level_embed)
        ]
    )
    reference = torch.tensor(
        [[(x + 0.5) / w, (y + 0.5) / h] for h, w in shapes for y in range(h) for x in range(w)]
    )
    sizes = torch.tensor([[w, h] for h, w in shapes])
    for layer in model.transformer.encoder.layers:
        attention, query = layer.self_attn, tokens + positions
        offsets = attention.sampling_offsets(query).view(*tokens.shape[:2], 4, 3, 4, 2)
        weights = attention.attention_weights(query).view(*tokens.shape[:2], 4, 12).softmax(-1)
        sampled = stacked_deformable_attention(
            attention.value_proj(tokens).unflatten(-1, (4, 8)),
            shapes,
            reference[:, None, None, None] + offsets / sizes[:, None],
            weights.view(*tokens.shape[:2], 4, 3, 4),
        )
        tokens = layer.norm1(tokens + attention.output_proj(sampled))
        tokens = layer.norm2(tokens + layer.linear2(F.relu(layer.linear1(tokens))))
    levels = [
        x.transpose(1, 2).reshape(len(x), 32, *shape)
        for x, shape in zip(tokens.split([h * w for h, w in shapes], 1), shapes)
    ]
    fine = model.adapter_1(maps["res2"])
    fine = fine + F.interpolate(levels[2], fine.shape[-2:], mode="bilinear", align_corners=False)
    return model.mask_features(model.layer_1(fine)), levels


def test_equals_the_direct_form():
    model, maps = decoder(), features()
    expected_mask, expected_levels = direct(model, maps)
    mask, levels = model(maps)
    torch.testing.assert_close(mask, expected_mask, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(levels, expected_levels, rtol=1e-4, atol=1e-4)
    assert [tuple(x.shape) for x in levels] == [(2, 32, 2, 3), (2, 32, 4, 6), (2, 32, 8, 12)]
    assert mask.shape == (2, 12, 16, 24)


def test_any_size_whose_maps_are_not_multiples_of_each_other():
    maps = {
        name: torch.randn(1, s.channels, -(-50 // s.stride), -(-70 // s.stride))
        for name, s in SHAPE.items()
    }
    mask, levels = decoder()(maps)
    assert mask.shape == (1, 12, 13, 18)
    assert [tuple(x.shape[-2:]) for x in levels] == [(2, 3), (4, 5), (7, 9)]


def test_frames_are_independent():
    model, maps = decoder().eval(), features(frames=5)
    whole_mask, whole_levels = model(maps)
    parts = [model({k: v[i : i + 2] for k, v in maps.items()}) for i in (0, 2, 4)]
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(torch.cat([mask for mask, _ in parts]), whole_mask, **close)
    for index, level in enumerate(whole_levels):
        found = torch.cat([levels[index] for _, levels in parts])
        torch.testing.assert_close(found, level, **close)


def test_runs_in_float32_under_autocast():
    model, maps = decoder(), features(dtype=torch.bfloat16)
    expected = model({name: x.float() for name, x in maps.items()})[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(maps)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_every_parameter_learns():
    model = decoder()
    mask, levels = model(features())
    (mask.square().mean() + sum(x.square().mean() for x in levels)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.count_nonzero(), name


def test_deeper_pyramids_have_a_step_for_each_finer_map():
    model = decoder(transformer_in_features=["res4", "res5"], transformer_layers=0)
    mask, levels = model(features())
    assert mask.shape == (2, 12, 16, 24) and len(levels) == 3
    assert levels[2].shape[-2:] == (8, 12)  # res3 comes from the FPN
    assert model.adapter_1.in_channels == CHANNELS["res2"]
    assert model.adapter_2.in_channels == CHANNELS["res3"]


def test_initial_values():
    torch.manual_seed(0)
    model = MSDeformAttnPixelDecoder(SHAPE, conv_dim=64, transformer_in_features=ENCODER)
    layer = model.transformer.encoder.layers[5]
    bound = (6 / (64 + 1024)) ** 0.5  # Xavier
    assert bound * 0.95 < layer.linear1.weight.abs().max() <= bound
    assert layer.self_attn.sampling_offsets.weight.count_nonzero() == 0
    assert layer.self_attn.sampling_offsets.bias.view(8, 3, 4, 2)[0, 0, 3, 0] == 4
    assert model.input_proj[0][0].bias.count_nonzero() == 0
    assert model.transformer.level_embed.std().item() == pytest.approx(1, abs=0.2)


def test_without_norm_the_pyramid_has_biases():
    model = decoder(norm="")
    assert model.adapter_1.bias is not None and model.adapter_1.norm is None
    assert decoder().adapter_1.bias is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"conv_dim": 48}, "CONVS_DIM 48.*divisible by 32"),
        ({"transformer_in_features": ["res3", "p5"]}, "ENCODER_IN_FEATURES.*'p5'"),
        ({"transformer_in_features": []}, "ENCODER_IN_FEATURES"),
        ({"common_stride": 2}, r"strides \[2, 4\] below"),
        ({"common_stride": 16}, "stride 16"),
        ({"transformer_heads": 5}, "32 channels among 5 heads"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        decoder(**settings)


def test_registry_is_not_that_of_another_package():
    assert module.PIXEL_DECODER_REGISTRY.get("MSDeformAttnPixelDecoder") is MSDeformAttnPixelDecoder
