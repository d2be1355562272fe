import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from msr_d2.mask_scoring import MaskIoUHead
from msr_d2.mask_scoring.heads import INPUT_MODES, select_class


def head(mode="concat", channels=4, side=14, classes=3, **kwargs):
    shape = ShapeSpec(channels=channels, height=side, width=side)
    kwargs = {"conv_dims": (8, 8, 8, 8), "fc_dims": (16, 16), **kwargs}
    return MaskIoUHead(shape, num_classes=classes, input_mode=mode, **kwargs)


def inputs(count=2, channels=4, side=14, classes=3, mask_side=28):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, channels, side, side, generator=generator),
        torch.randn(count, classes, mask_side, mask_side, generator=generator),
        torch.arange(count) % classes,
    )


def test_size_of_the_paper():
    paper = MaskIoUHead(ShapeSpec(channels=256, height=14, width=14), num_classes=80)
    assert sum(p.numel() for p in paper.parameters()) == 16_340_304
    names = {name.split(".")[0] for name, _ in paper.named_parameters()}
    convs = {f"maskiou_fcn{k}" for k in range(1, 5)}
    assert names == convs | {"maskiou_fc1", "maskiou_fc2", "maskiou"}
    assert paper.maskiou_fcn1.weight.shape == (256, 257, 3, 3)
    assert paper.maskiou_fc1.weight.shape == (1024, 12544)


def test_multiply_adds_of_the_paper():
    paper = MaskIoUHead(ShapeSpec(channels=256, height=14, width=14), num_classes=80)
    count = 0

    def add(module, _, output):
        nonlocal count
        per_output = module.weight[0].numel()
        count += per_output * output.numel()

    for module in paper.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(add)
    paper(torch.zeros(1, 256, 14, 14), torch.zeros(1, 80, 28, 28), torch.zeros(1).long())
    assert count == 390_145_024


def test_mask_is_the_last_channel_max_pooled_and_a_probability():
    features, logits, classes = inputs()
    joined = head().join(features, logits, classes)
    assert joined.shape == (2, 5, 14, 14)
    assert torch.equal(joined[:, :4], features)
    expected = nn.functional.max_pool2d(logits[[0, 1], classes].sigmoid()[:, None], 2, 2)
    torch.testing.assert_close(joined[:, 4:], expected)


def test_multiply_and_concat_all_and_mask_only():
    features, logits, classes = inputs()
    pooled = nn.functional.max_pool2d(logits.sigmoid(), 2, 2)
    own = pooled[[0, 1], classes][:, None]
    torch.testing.assert_close(head("multiply").join(features, logits, classes), features * own)
    all_masks = head("concat_all").join(features, logits, classes)
    torch.testing.assert_close(all_masks, torch.cat([features, pooled], 1))
    torch.testing.assert_close(head("mask_only").join(features, logits, classes), own)


def test_high_resolution_keeps_the_mask_and_the_fc_size():
    features, logits, classes = inputs(side=28)
    high = head("concat_hr", side=28)
    joined = high.join(features, logits, classes)
    torch.testing.assert_close(joined[:, 4], logits[[0, 1], classes].sigmoid())
    assert high.maskiou_fc1.in_features == head().maskiou_fc1.in_features
    assert high(features, logits, classes).shape == (2, 3)


@pytest.mark.parametrize("mode", INPUT_MODES)
@pytest.mark.parametrize("side, mask_side", [(14, 28), (7, 14), (10, 10), (13, 28), (14, 56)])
def test_any_resolution(mode, side, mask_side):
    side = mask_side if mode == "concat_hr" else side
    features, logits, classes = inputs(side=side, mask_side=mask_side)
    assert head(mode, side=side)(features, logits, classes).shape == (2, 3)


@pytest.mark.parametrize("mode", INPUT_MODES)
def test_no_rois_still_reach_every_parameter(mode):
    side = 28 if mode == "concat_hr" else 14
    module = head(mode, side=side)
    out = module(*inputs(count=0, side=side))
    assert out.shape == (0, 3)
    out.sum().backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


def test_class_agnostic_masks_keep_one_output_a_class():
    features, logits, classes = inputs()
    out = head("concat_all", num_mask_channels=1)(features, logits[:, :1], classes)
    assert out.shape == (2, 3)
    assert head()(features, logits[:, :1], classes).shape == (2, 3)


def test_gradient_flows_into_the_mask_of_the_class_only():
    features, logits, classes = inputs()
    logits.requires_grad_()
    head()(features, logits, classes)[[0, 1], classes].sum().backward()
    touched = logits.grad.flatten(2).abs().sum(2) > 0
    assert torch.equal(touched, nn.functional.one_hot(classes, 3).bool())


def test_select_class():
    values = torch.arange(6).view(2, 3)
    assert select_class(values, torch.tensor([2, 0])).tolist() == [2, 3]
    assert select_class(values[:, :1], torch.tensor([2, 0])).tolist() == [0, 3]


def test_bad_arguments_name_the_key():
    with pytest.raises(ValueError, match="ROI_MASKIOU_HEAD.INPUT is 'sum'"):
        head("sum")
    with pytest.raises(ValueError, match="NUM_CONV is 1"):
        head("concat_hr", side=28, conv_dims=(8,))
