import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msr_d2.checkpoint import detect_source
from msr_d2.checkpoint.mapping import (
    check_mmdet_version,
    is_dropped,
    rename_key,
    size_major_anchors,
    transform_weight,
)
from tests.checkpoint.sources import maskscoring_rcnn_names, mmdet_names, source_name

NAMES = {"maskscoring_rcnn": maskscoring_rcnn_names, "mmdet": mmdet_names}


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("depth", [50, 101])
def test_no_two_weights_get_the_same_name(source, depth):
    names = [name for name in NAMES[source](depth) if not is_dropped(name)]
    renamed = [rename_key(name, source) for name in names]
    assert None not in renamed and len(set(renamed)) == len(names)


@pytest.mark.parametrize(
    "source, name, expected",
    [
        ("maskscoring_rcnn", "backbone.fpn.fpn_inner1.bias", "backbone.fpn_lateral2.bias"),
        ("maskscoring_rcnn", "backbone.fpn.fpn_layer4.bias", "backbone.fpn_output5.bias"),
        (
            "maskscoring_rcnn",
            "backbone.body.layer3.22.bn2.running_var",
            "backbone.bottom_up.res4.22.conv2.norm.running_var",
        ),
        (
            "maskscoring_rcnn",
            "roi_heads.maskiou.predictor.maskiou.bias",
            "roi_heads.maskiou_head.maskiou.bias",
        ),
        ("mmdet", "neck.lateral_convs.0.conv.bias", "backbone.fpn_lateral2.bias"),
        (
            "mmdet",
            "backbone.layer4.0.downsample.1.weight",
            "backbone.bottom_up.res5.0.shortcut.norm.weight",
        ),
        (
            "mmdet",
            "backbone.layer2.0.conv2.conv_offset.weight",
            "backbone.bottom_up.res3.0.conv2_offset.weight",
        ),
        ("mmdet", "roi_head.mask_iou_head.fcs.1.bias", "roi_heads.maskiou_head.maskiou_fc2.bias"),
        ("mmdet", "neck.fpn_convs.4.conv.weight", None),
        ("detectron2", "anything", "anything"),
    ],
)
def test_names(source, name, expected):
    assert rename_key(name, source) == expected


def test_names_without_fpn():
    assert rename_key("backbone.body.layer1.0.conv1.weight", "maskscoring_rcnn", "backbone.") == (
        "backbone.res2.0.conv1.weight"
    )
    for branch in ("box", "mask"):  # the mask branch saves the shared res5 once more
        name = f"roi_heads.{branch}.feature_extractor.head.layer4.0.bn1.bias"
        assert rename_key(name, "maskscoring_rcnn") == "roi_heads.res5.0.conv1.norm.bias"


@given(
    st.sampled_from(sorted(NAMES)),
    st.integers(2, 5),
    st.integers(0, 40),
    st.sampled_from(
        ["conv1.weight", "conv2.norm.running_var", "shortcut.weight", "shortcut.norm.bias"]
    ),
)
def test_renaming_undoes_the_inverse(source, stage, block, layer):
    name = f"backbone.bottom_up.res{stage}.{block}.{layer}"
    assert rename_key(source_name(name, source), source) == name


@pytest.mark.parametrize("source", NAMES)
def test_source_is_told_from_the_names(source):
    assert detect_source(NAMES[source](50)) == source


def test_source_detectron2():
    assert detect_source(["backbone.bottom_up.stem.conv1.weight"]) == "detectron2"
    assert detect_source(["roi_heads.res5.0.conv1.weight", "other"]) == "detectron2"


@pytest.mark.parametrize(
    "names, message",
    [
        (["a", "b"], "fit no known code base .*Name it with --source"),
        (["conv1_w", "res_conv1_bn_s"], "Caffe2.*MODEL.WEIGHTS"),
        (["neck.lateral_convs.0.conv.bias", "rpn.head.conv.bias"], "maskscoring_rcnn and mmdet"),
    ],
)
def test_unclear_source(names, message):
    with pytest.raises(ValueError, match=message):
        detect_source(names)


def test_mmdetection_1_is_refused():
    with pytest.raises(ValueError, match="mmdetection 1"):
        check_mmdet_version(["backbone.conv1.weight", "bbox_head.fc_cls.weight"])
    check_mmdet_version(mmdet_names(50))


def test_background_goes_last():
    rows = torch.arange(5.0)[:, None].expand(5, 2)  # background, then classes 1 to 4
    moved = transform_weight("roi_heads.box_predictor.cls_score.weight", rows, "maskscoring_rcnn")
    assert moved[:, 0].tolist() == [1, 2, 3, 4, 0]
    same = transform_weight("roi_heads.box_predictor.cls_score.weight", rows, "mmdet")
    assert same is rows


@pytest.mark.parametrize(
    "name, rows, expected",
    [
        ("roi_heads.box_predictor.bbox_pred.bias", 12, list(range(4, 12))),
        ("roi_heads.mask_head.predictor.bias", 3, [1, 2]),
        ("roi_heads.maskiou_head.maskiou.bias", 3, [1, 2]),
        ("roi_heads.maskiou_head.maskiou_fc1.bias", 3, [0, 1, 2]),
    ],
)
def test_background_is_dropped(name, rows, expected):
    bias = torch.arange(float(rows))
    assert transform_weight(name, bias, "maskscoring_rcnn").tolist() == expected
    assert transform_weight(name, bias, "mmdet").tolist() == list(range(rows))


def test_anchor_order():
    # Two ratios a, b and three sizes 0, 1, 2: a0 a1 a2 b0 b1 b2 becomes a0 b0 a1 b1 a2 b2.
    ratio_major = torch.tensor([10.0, 11, 12, 20, 21, 22])
    name = "proposal_generator.rpn_head.objectness_logits.bias"
    for source in NAMES:
        moved = transform_weight(name, ratio_major, source, num_anchor_sizes=3)
        assert moved.tolist() == [10, 20, 11, 21, 12, 22]
    assert transform_weight(name, ratio_major, "detectron2", num_anchor_sizes=3) is ratio_major

    deltas = torch.cat([ratio_major[:, None] * 10 + torch.arange(4.0)]).flatten()
    moved = transform_weight(name.replace("objectness_logits", "anchor_deltas"), deltas, "mmdet", 3)
    assert moved.tolist()[:9] == [100, 101, 102, 103, 200, 201, 202, 203, 110]


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 4]), st.integers(1, 3))
def test_anchor_order_is_a_permutation(num_sizes, num_ratios, values, inputs):
    weight = torch.arange(float(num_sizes * num_ratios * values * inputs)).view(-1, inputs, 1, 1)
    moved = size_major_anchors(weight, num_sizes, values)
    assert moved.shape == weight.shape
    # Exchanging the two numbers undoes it.
    assert torch.equal(size_major_anchors(moved, num_ratios, values), weight)


def test_anchor_order_with_the_wrong_number():
    with pytest.raises(ValueError, match="15 channels cannot have 4 anchor sizes"):
        size_major_anchors(torch.zeros(15), 4, 1)
