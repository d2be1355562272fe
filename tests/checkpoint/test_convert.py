import functools

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_d2 import get_cfg
from msr_d2.checkpoint import (
    IncompleteConversionError,
    convert_state_dict,
    model_state_shapes,
)
from msr_d2.testing import tiny_batch, tiny_cfg
from tests.checkpoint.sources import maskscoring_rcnn_names, mmdet_names, to_source

NAMES = {"maskscoring_rcnn": maskscoring_rcnn_names, "mmdet": mmdet_names}
CONFIGS = {
    ("maskscoring_rcnn", 50): "official_R_50_FPN.yaml",
    ("maskscoring_rcnn", 101): "official_R_101_FPN.yaml",
    ("mmdet", 50): "ms_rcnn_R_50_FPN_1x.yaml",
    ("mmdet", 101): "ms_rcnn_R_101_FPN_1x.yaml",
}
FROZEN = ["MODEL.RESNETS.NORM", "FrozenBN"]


@functools.lru_cache
def tiny_state(variant="fpn", num_classes=3, maskiou=True, agnostic=False, norm="FrozenBN"):
    """Random weights of a small model, batch norm statistics included, and the model."""
    opts = ["MODEL.RESNETS.NORM", norm, "MODEL.MASKIOU_ON", maskiou]
    opts += ["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", agnostic]
    opts += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic]
    torch.manual_seed(3)
    model = build_model(tiny_cfg(variant, num_classes, opts)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "norm.bias")):
            buffer.normal_(std=0.1)
    return model.state_dict(), model


def shapes_of(state):
    return {name: weight.shape for name, weight in state.items()}


@pytest.mark.parametrize("source, depth", CONFIGS)
def test_every_weight_of_the_published_models(source, depth, repository):
    """From a list of the source's weights, all 321 or 576 weights of ours, and nothing left."""
    cfg = get_cfg()
    cfg.merge_from_file(repository / "configs/mask_scoring" / CONFIGS[source, depth])
    shapes = model_state_shapes(cfg)
    weights = {
        name: torch.empty(shape, device="meta") for name, shape in NAMES[source](depth).items()
    }
    report = convert_state_dict(weights, None, shapes)
    report.check()
    assert report.source == source
    assert {name: tuple(w.shape) for name, w in report.state_dict.items()} == shapes
    assert report.matched.keys() == shapes.keys()
    assert len(set(report.matched.values())) == len(shapes) == {50: 321, 101: 576}[depth]
    assert report.unused == []
    assert len(report.matched) + len(report.dropped) == len(weights)
    assert report.num_model_weights == len(shapes)


@settings(max_examples=12)
@given(
    st.sampled_from(["maskscoring_rcnn", "mmdet"]),
    st.sampled_from(["fpn", "c4"]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_round_trip(source, variant, num_classes, maskiou, agnostic):
    state, _ = tiny_state(variant, num_classes, maskiou, agnostic)
    num_sizes = 2 if variant == "c4" else 1
    weights = to_source(state, source, num_sizes)
    assert len(weights) == len(state)
    report = convert_state_dict(weights, None, shapes_of(state), num_anchor_sizes=num_sizes)
    report.check()
    assert report.state_dict.keys() == state.keys() and not report.unused
    for name, weight in state.items():
        rounding = 3e-7 if name.endswith("running_var") else 0
        torch.testing.assert_close(report.state_dict[name], weight, rtol=rounding, atol=0)


@pytest.mark.parametrize("source", ["maskscoring_rcnn", "mmdet"])
@pytest.mark.parametrize("variant", ["fpn", "c4"])
def test_outputs_of_the_converted_model(source, variant):
    state, model = tiny_state(variant)
    num_sizes = 2 if variant == "c4" else 1
    weights = to_source(state, source, num_sizes)
    report = convert_state_dict(weights, None, shapes_of(state), num_anchor_sizes=num_sizes)
    torch.manual_seed(11)
    converted = build_model(tiny_cfg(variant, opts=FROZEN)).eval()
    batch = [{k: v for k, v in item.items() if k != "instances"} for item in tiny_batch()]
    with torch.no_grad():
        before = converted(batch)[0]["instances"].scores
        converted.load_state_dict(report.state_dict)
        expected, outputs = model(batch), converted(batch)
    for left, right in zip(expected, outputs):
        left, right = left["instances"], right["instances"]
        assert len(left) == 10 and not torch.equal(left.scores[: len(before)], before)
        torch.testing.assert_close(left.scores, right.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(left.mask_scores, right.mask_scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            left.pred_boxes.tensor, right.pred_boxes.tensor, rtol=1e-4, atol=1e-3
        )
        assert (left.pred_masks != right.pred_masks).float().mean() < 1e-3


def test_batch_norm_without_epsilon():
    """The official code divides by sqrt(var); detectron2 by sqrt(var + 1e-5)."""
    torch.manual_seed(0)
    weights = {kind: torch.rand(6) + 0.1 for kind in ("weight", "bias", "running_mean")}
    weights["running_var"] = torch.tensor([1e-5, 1e-4, 1e-3, 0.1, 1.0, 50.0])
    state = {f"backbone.body.stem.bn1.{kind}": value for kind, value in weights.items()}
    name = "backbone.bottom_up.stem.conv1.norm"
    report = convert_state_dict(state, None, {f"{name}.{kind}": (6,) for kind in weights})
    norm = FrozenBatchNorm2d(6)
    norm.load_state_dict({kind: report.state_dict[f"{name}.{kind}"] for kind in weights})

    x = torch.randn(2, 6, 5, 5)
    scale = weights["weight"] * weights["running_var"].double().rsqrt()
    shift = weights["bias"] - weights["running_mean"] * scale
    expected = x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-4, atol=1e-4)
    plain = FrozenBatchNorm2d(6)
    plain.load_state_dict(weights)
    assert (plain(x) - expected).abs().max() > 1  # what a mere renaming would give


@pytest.mark.parametrize("source", ["maskscoring_rcnn", "detectron2"])
def test_batch_norm_with_scale_and_shift_only(source):
    prefix = {
        "maskscoring_rcnn": "backbone.body.stem.bn1",
        "detectron2": "backbone.bottom_up.stem.conv1.norm",
    }[source]
    weights = {"weight": torch.tensor([2.0, 3.0]), "bias": torch.tensor([1.0, -1.0])}
    name = "backbone.bottom_up.stem.conv1.norm"
    shapes = {f"{name}.{k}": (2,) for k in ("weight", "bias", "running_mean", "running_var")}
    report = convert_state_dict({f"{prefix}.{k}": v for k, v in weights.items()}, source, shapes)
    report.check()
    assert report.filled == [f"{name}.running_mean", f"{name}.running_var"]
    norm = FrozenBatchNorm2d(2)
    norm.load_state_dict({k.rpartition(".")[2]: v for k, v in report.state_dict.items()})
    x = torch.randn(1, 2, 3, 3)
    expected = x * weights["weight"].view(1, 2, 1, 1) + weights["bias"].view(1, 2, 1, 1)
    torch.testing.assert_close(norm(x), expected, rtol=2e-5, atol=1e-6)


def test_model_with_ordinary_batch_norm():
    """Its step counters, which the official code has not, start at zero."""
    state, _ = tiny_state(norm="BN")
    report = convert_state_dict(to_source(state, "maskscoring_rcnn"), None, shapes_of(state))
    report.check()
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert counters and report.filled == counters
    assert report.state_dict[counters[0]].dtype == torch.int64


def test_detectron2_model_without_maskiou_head():
    """The zoo's Mask R-CNN: only the new head may be missing, and the report says so."""
    state, _ = tiny_state()
    plain = _without_maskiou(state)
    plain["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    report = convert_state_dict(plain, None, shapes_of(state))
    report.check()
    assert report.source == "detectron2" and len(report.dropped) == 1
    assert report.allowed_missing == [name for name in state if ".maskiou_head." in name]
    assert "MaskIoU head is NEW" in report.notes[0]
    assert all(torch.equal(report.state_dict[n], w) for n, w in plain.items() if n in state)


def test_other_sources_must_ask_for_a_new_maskiou_head():
    state, _ = tiny_state()
    weights = to_source(_without_maskiou(state), "mmdet")
    with pytest.raises(IncompleteConversionError, match="maskiou_head"):
        convert_state_dict(weights, None, shapes_of(state)).check()
    allowed = ["roi_heads.maskiou_head."]
    report = convert_state_dict(weights, None, shapes_of(state), allow_missing=allowed)
    report.check()
    assert "MaskIoU head is NEW" in report.notes[0]


def _without_maskiou(state):
    return {name: w for name, w in state.items() if ".maskiou_head." not in name}


@pytest.mark.parametrize("source", ["maskscoring_rcnn", "mmdet", "detectron2"])
def test_each_missing_weight_is_an_error(source):
    state, _ = tiny_state()
    weights = dict(state) if source == "detectron2" else to_source(state, source)
    for lost in ("fpn_lateral3.bias", "box_predictor.cls_score.weight", "res4.1.conv2.weight"):
        (name,) = [name for name in state if name.endswith(lost)]
        full = convert_state_dict(weights, None, shapes_of(state))
        left = {k: w for k, w in weights.items() if k != full.matched[name]}
        report = convert_state_dict(left, None, shapes_of(state))
        assert report.missing == [name]
        with pytest.raises(IncompleteConversionError, match=f"{name}: not in the checkpoint"):
            report.check()
        assert f"  {name}" in report.format()
        convert_state_dict(left, None, shapes_of(state), allow_missing=[name]).check()


def test_unused_weights_are_listed():
    state, _ = tiny_state()
    weights = to_source(state, "mmdet")
    weights["neck.fpn_convs.4.conv.weight"] = torch.zeros(1)
    report = convert_state_dict(weights, None, shapes_of(state))
    report.check()
    assert report.unused == ["neck.fpn_convs.4.conv.weight"]
    text = report.format()
    assert "unused: in the checkpoint, not in the model (1)" in text
    assert "neck.fpn_convs.4.conv.weight" in text
    assert "neck.fpn_convs.3.conv.weight -> backbone.fpn_output5.weight" in report.format(True)


def test_checkpoint_with_maskiou_head_for_a_model_without():
    state, _ = tiny_state()
    plain, _ = tiny_state(maskiou=False)
    report = convert_state_dict(to_source(state, "maskscoring_rcnn"), None, shapes_of(plain))
    report.check()
    assert report.unused and all("roi_heads.maskiou." in key for key in report.unused)


def test_checkpoint_of_a_deeper_model():
    """Of an R-101 an R-50 would take the first blocks of each stage, complete and useless."""
    state, _ = tiny_state()
    deeper = dict(state)
    for name, weight in state.items():
        if ".res4.1." in name:
            deeper[name.replace(".res4.1.", ".res4.2.")] = weight
    for source in ("maskscoring_rcnn", "mmdet", "detectron2"):
        weights = deeper if source == "detectron2" else to_source(deeper, source)
        report = convert_state_dict(weights, None, shapes_of(state))
        assert len(report.unused) == len(deeper) - len(state) and report.unused == report.surplus
        with pytest.raises(IncompleteConversionError, match="MODEL.RESNETS.DEPTH"):
            report.check()


def test_a_part_that_is_trained_anew_may_have_other_layers():
    state, _ = tiny_state()
    deeper = {**state, "roi_heads.mask_head.mask_fcn2.bias": torch.zeros(16)}
    with pytest.raises(IncompleteConversionError, match="mask_fcn2"):
        convert_state_dict(deeper, None, shapes_of(state)).check()
    allowed = ["roi_heads.mask_head."]
    convert_state_dict(deeper, None, shapes_of(state), allow_missing=allowed).check()


def test_layers_of_parts_that_the_model_has_not_are_only_unused():
    state, _ = tiny_state()
    extra = {
        "roi_heads.keypoint_head.x": torch.zeros(1),
        "backbone.bottom_up.linear.bias": torch.zeros(1),
    }
    report = convert_state_dict({**state, **extra}, "detectron2", shapes_of(state))
    report.check()
    assert report.unused == list(extra)


def test_other_number_of_classes():
    state, _ = tiny_state(num_classes=4)
    model, _ = tiny_state(num_classes=3)
    report = convert_state_dict(to_source(state, "maskscoring_rcnn"), None, shapes_of(model))
    names = {name: (old, new) for name, old, new in report.shape_mismatch}
    assert names["roi_heads.box_predictor.cls_score.bias"] == ((5,), (4,))
    assert names["roi_heads.box_predictor.bbox_pred.bias"] == ((16,), (12,))
    assert names["roi_heads.maskiou_head.maskiou.bias"] == ((4,), (3,))
    assert not set(names) & set(report.state_dict)
    with pytest.raises(IncompleteConversionError, match="NUM_CLASSES"):
        report.check()
    prefixes = ["roi_heads.box_predictor.", "roi_heads.mask_head.predictor."]
    prefixes += ["roi_heads.maskiou_head.maskiou."]
    report = convert_state_dict(
        to_source(state, "maskscoring_rcnn"), None, shapes_of(model), allow_missing=prefixes
    )
    report.check()
    assert len(report.allowed_missing) == 8 and len(report.unused) == 8


def test_heads_with_and_without_background():
    """An 80-row head of mmdetection read as an 81-row head would lose a class: no shape fits."""
    state, _ = tiny_state()
    weights = to_source(state, "maskscoring_rcnn")
    weights["roi_heads.maskiou.predictor.maskiou.bias"] = torch.zeros(3)  # no background row
    report = convert_state_dict(weights, None, shapes_of(state))
    assert report.shape_mismatch == [("roi_heads.maskiou_head.maskiou.bias", (2,), (3,))]


def test_two_copies_of_a_shared_layer():
    state, _ = tiny_state("c4", maskiou=False)
    weights = to_source(state, "maskscoring_rcnn", num_sizes=2)
    first = "roi_heads.box.feature_extractor.head.layer4.0.conv1.weight"
    second = first.replace("box", "mask", 1)
    weights[second] = weights[first].clone()
    report = convert_state_dict(weights, None, shapes_of(state), num_anchor_sizes=2)
    report.check()
    assert report.dropped == [second]
    weights[second] += 1
    with pytest.raises(ValueError, match="both belong to 'roi_heads.res5.0.conv1.weight'"):
        convert_state_dict(weights, None, shapes_of(state), num_anchor_sizes=2)


def test_deformable_convolutions_come_with_a_caution():
    name = "backbone.bottom_up.res3.0.conv2_offset.weight"
    state = {"backbone.layer2.0.conv2.conv_offset.weight": torch.zeros(18, 4, 3, 3)}
    report = convert_state_dict(state, None, {name: (18, 4, 3, 3)})
    assert list(report.state_dict) == [name]
    assert "not verified" in report.notes[0]


def test_wrong_arguments():
    state, _ = tiny_state()
    with pytest.raises(ValueError, match="'caffe' is unknown"):
        convert_state_dict(state, "caffe", shapes_of(state))
    with pytest.raises(ValueError, match="no weight of the model starts like that"):
        convert_state_dict(state, None, shapes_of(state), allow_missing=["roi_head.maskiou"])
