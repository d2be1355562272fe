"""The legacy modules against a small model of maskrcnn-benchmark, written in "+1" coordinates."""

import copy
import math

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator, build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from msr_d2.modeling import LegacyFastRCNNOutputLayers, LegacyROIPooler, check_legacy_config
from msr_d2.modeling.legacy import LEGACY_SETTINGS, keep_best_of_batch, legacy_postprocess
from msr_d2.testing import tiny_batch, tiny_cfg

EDGE = np.array([0.0, 0.0, 1.0, 1.0])  # from the last pixel to the edge behind it


# --- maskrcnn-benchmark in small; boxes are (first pixel, last pixel) ------------------------


def decode(deltas, box, weights):
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    cx, cy = box[0] + 0.5 * width, box[1] + 0.5 * height
    dx, dy, dw, dh = np.asarray(deltas, float) / weights
    limit = math.log(1000 / 16)
    cx, cy = dx * width + cx, dy * height + cy
    width, height = math.exp(min(dw, limit)) * width, math.exp(min(dh, limit)) * height
    return [cx - width / 2, cy - height / 2, cx + width / 2 - 1, cy + height / 2 - 1]


def encode(target, box, weights):
    def center_and_size(b):
        width, height = b[2] - b[0] + 1, b[3] - b[1] + 1
        return b[0] + 0.5 * width, b[1] + 0.5 * height, width, height

    (cx, cy, w, h), (tx, ty, tw, th) = center_and_size(box), center_and_size(target)
    values = [(tx - cx) / w, (ty - cy) / h, math.log(tw / w), math.log(th / h)]
    return np.array(values) * weights


def clip(box, image_size):
    height, width = image_size
    limits = (width - 1, height - 1, width - 1, height - 1)
    return [min(max(v, 0), limit) for v, limit in zip(box, limits)]


def iou(a, b):
    def area(box):
        return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)

    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    return width * height / (area(a) + area(b) - width * height)


def nms(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


# -----------------------------------------------------------------------------------------------


def legacy_cfg(opts=()):
    opts = [entry for pair in LEGACY_SETTINGS.items() for entry in pair] + list(opts)
    return tiny_cfg("fpn", opts=opts)


def last_pixels(boxes):
    return (boxes.double().numpy() - EDGE).tolist()


def random_boxes(num, generator, low=-30.0, high=150.0):
    corners = torch.rand(num, 2, 2, generator=generator) * (high - low) + low
    boxes = torch.cat([corners.min(dim=1).values, corners.max(dim=1).values + 1], dim=1)
    return boxes


def test_encoding_is_detectron2s_on_continuous_boxes():
    generator = torch.Generator().manual_seed(0)
    boxes, targets = random_boxes(50, generator), random_boxes(50, generator)
    weights = (10.0, 10.0, 5.0, 5.0)
    transform = Box2BoxTransform(weights)
    deltas = transform.get_deltas(boxes, targets)
    expected = [encode(t, b, weights) for t, b in zip(last_pixels(targets), last_pixels(boxes))]
    torch.testing.assert_close(
        deltas.double(), torch.tensor(np.array(expected)), rtol=1e-4, atol=1e-4
    )
    decoded = [decode(d, b, weights) for d, b in zip(deltas.tolist(), last_pixels(boxes))]
    expected = torch.tensor(np.array(decoded) + EDGE)
    torch.testing.assert_close(
        transform.apply_deltas(deltas, boxes).double(), expected, rtol=1e-4, atol=1e-3
    )


def test_anchor_grid():
    cfg = legacy_cfg(["MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]]])
    shapes = [ShapeSpec(channels=1, stride=stride) for stride in (4, 8)]
    generator = build_anchor_generator(cfg, shapes)
    anchors = generator([torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 1, 2)])
    assert generator.num_anchors == [3, 3]
    # Cell by cell in rows, ratios 0.5, 1 and 2 in each; the second cell is one stride to the right.
    assert anchors[0].tensor[:4].tolist() == [
        [-22, -10, 26, 14],
        [-14, -14, 18, 18],
        [-10, -22, 14, 26],
        [-18, -10, 30, 14],
    ]
    assert anchors[0].tensor[-1].tolist() == [-6, -14, 18, 34]
    assert anchors[1].tensor[3].tolist() == [-32, -20, 56, 28]


def test_anchor_offset_is_refused():
    cfg = tiny_cfg("fpn", opts=["MODEL.ANCHOR_GENERATOR.NAME", "LegacyAnchorGenerator"])
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    with pytest.raises(ValueError, match="OFFSET is 0.5"):
        build_anchor_generator(cfg, [ShapeSpec(channels=1, stride=4)] * 5)


def proposals_by_loops(anchors, logits, deltas, image_size, pre_topk, post_topk, threshold):
    found = []
    for boxes, scores, level_deltas in zip(anchors, logits, deltas):
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:pre_topk]
        clipped = [clip(decode(level_deltas[i], boxes[i], (1, 1, 1, 1)), image_size) for i in order]
        kept = nms(clipped, [scores[i] for i in order], threshold)
        found += [(scores[order[k]], clipped[k]) for k in kept]
    return sorted(found, key=lambda entry: -entry[0])[:post_topk]


def test_proposals_against_loops():
    model = build_model(legacy_cfg()).eval()
    rpn, generator = model.proposal_generator, torch.Generator().manual_seed(2)
    sizes = [(64, 96), (50, 80)]
    features = [torch.zeros(2, 32, 16, 24), torch.zeros(2, 32, 8, 12), torch.zeros(2, 32, 4, 6)]
    rpn.anchor_generator.strides = rpn.anchor_generator.strides[:3]
    anchors = rpn.anchor_generator(features)
    logits = [torch.randn(2, len(a), generator=generator) for a in anchors]
    deltas = [torch.randn(2, len(a), 4, generator=generator) * 0.7 for a in anchors]
    proposals = rpn.predict_proposals(anchors, logits, deltas, sizes)
    for image, found in enumerate(proposals):
        expected = proposals_by_loops(
            [last_pixels(a.tensor) for a in anchors],
            [level[image].tolist() for level in logits],
            [level[image].tolist() for level in deltas],
            sizes[image],
            rpn.pre_nms_topk[False],
            rpn.post_nms_topk[False],
            rpn.nms_thresh,
        )
        assert len(found) == len(expected) == 20
        boxes = torch.tensor(np.array([box for _, box in expected]) + EDGE)
        torch.testing.assert_close(found.proposal_boxes.tensor.double(), boxes, rtol=0, atol=1e-3)
        scores = torch.tensor([score for score, _ in expected])
        torch.testing.assert_close(found.objectness_logits, scores)


def test_training_proposals_are_ranked_over_the_batch():
    images = [
        Instances((9, 9), proposal_boxes=Boxes(torch.zeros(n, 4)), objectness_logits=logits)
        for n, logits in ((3, torch.tensor([5.0, 1, 0])), (2, torch.tensor([4.0, 3])))
    ]
    kept = keep_best_of_batch(images, 3)
    assert [image.objectness_logits.tolist() for image in kept] == [[5.0], [4.0, 3.0]]
    assert keep_best_of_batch(images, 5) is images


def roi_align_by_loops(features, box, scale, side):
    """RoIAlign without the half pixel shift; 2 x 2 samples in each bin; at least one cell large."""
    channels, height, width = features.shape
    x1, y1, x2, y2 = (v * scale for v in box)
    bin_w, bin_h = max(x2 - x1, 1.0) / side, max(y2 - y1, 1.0) / side
    pooled = np.zeros((channels, side, side))
    for row in range(side):
        for column in range(side):
            for sy in (0.25, 0.75):
                for sx in (0.25, 0.75):
                    y, x = y1 + (row + sy) * bin_h, x1 + (column + sx) * bin_w
                    if -1 <= y <= height and -1 <= x <= width:
                        pooled[:, row, column] += bilinear(features, y, x) / 4
    return pooled


def bilinear(features, y, x):
    _, height, width = features.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    a, b = y - top, x - left
    return (1 - a) * ((1 - b) * features[:, top, left] + b * features[:, top, right]) + a * (
        (1 - b) * features[:, bottom, left] + b * features[:, bottom, right]
    )


def test_pooling_against_loops():
    generator = torch.Generator().manual_seed(3)
    strides = (4, 8, 16, 32)
    features = [torch.randn(2, 3, 320 // s, 320 // s, generator=generator) for s in strides]
    boxes = random_boxes(24, generator, low=0, high=318)
    boxes[0] = torch.tensor([3.0, 3, 5, 5])  # smaller than a cell of the feature map
    boxes[1] = torch.tensor([0.0, 0, 224, 224])
    boxes[2] = torch.tensor([0.0, 0, 320, 320])
    pooler = ROIPooler(5, [1 / s for s in strides], 2, "ROIAlign")
    legacy = LegacyROIPooler.from_pooler(pooler)
    pooled = legacy(features, [Boxes(boxes[:10]), Boxes(boxes[10:])])
    assert pooled.shape == (24, 3, 5, 5)
    for index, box in enumerate(last_pixels(boxes)):
        side = math.sqrt((box[2] - box[0] + 1) * (box[3] - box[1] + 1))
        level = min(max(math.floor(4 + math.log2(side / 224 + 1e-6)), 2), 5) - 2
        feature = features[level][0 if index < 10 else 1].double().numpy()
        expected = roi_align_by_loops(feature, box, 1 / strides[level], 5)
        np.testing.assert_allclose(pooled[index].numpy(), expected, atol=1e-4)


def test_pooling_no_boxes_and_wrong_type():
    pooler = LegacyROIPooler.from_pooler(ROIPooler(7, [1 / 4], 2, "ROIAlign"))
    empty = pooler([torch.zeros(1, 3, 8, 8)], [Boxes(torch.zeros(0, 4))])
    assert empty.shape == (0, 3, 7, 7)
    with pytest.raises(ValueError, match="POOLER_TYPE 'ROIAlign'"):
        LegacyROIPooler.from_pooler(ROIPooler(7, [1 / 4], 2, "ROIAlignV2"))


def test_detections_against_loops():
    num_classes, num_boxes, image_size = 3, 40, (90, 120)
    generator = torch.Generator().manual_seed(4)
    weights = (10.0, 10.0, 5.0, 5.0)
    predictor = LegacyFastRCNNOutputLayers(
        ShapeSpec(channels=4),
        box2box_transform=Box2BoxTransform(weights),
        num_classes=num_classes,
        test_score_thresh=0.05,
        test_nms_thresh=0.5,
        test_topk_per_image=15,
    )
    proposals = random_boxes(num_boxes, generator, low=-10, high=125)
    logits = torch.randn(num_boxes, num_classes + 1, generator=generator)
    deltas = torch.randn(num_boxes, num_classes * 4, generator=generator) * 2
    instances = Instances(image_size, proposal_boxes=Boxes(proposals))
    (found,), _ = predictor.inference((logits, deltas), [instances])

    probabilities = logits.double().softmax(dim=1).tolist()
    expected = []
    for cls in range(num_classes):
        rows = [i for i in range(num_boxes) if probabilities[i][cls] > 0.05]
        boxes = [
            clip(decode(deltas[i, 4 * cls : 4 * cls + 4].tolist(), box, weights), image_size)
            for i, box in enumerate(last_pixels(proposals))
        ]
        boxes, scores = [boxes[i] for i in rows], [probabilities[i][cls] for i in rows]
        expected += [(scores[k], cls, boxes[k]) for k in nms(boxes, scores, 0.5)]
    expected = sorted(expected, key=lambda entry: -entry[0])[:15]
    assert found.pred_classes.tolist() == [cls for _, cls, _ in expected]
    torch.testing.assert_close(
        found.scores.double(), torch.tensor([s for s, _, _ in expected]).double()
    )
    boxes = torch.tensor(np.array([box for _, _, box in expected]) + EDGE)
    torch.testing.assert_close(found.pred_boxes.tensor.double(), boxes, rtol=0, atol=1e-3)


def test_outputs_at_the_size_of_the_original_image():
    # Network input 100 x 200, original image 50 x 100: factor 1/2 for the index of the last pixel.
    instances = Instances(
        (100, 200),
        pred_boxes=Boxes(torch.tensor([[10.0, 20, 31, 41], [150, 60, 200, 100], [9, 9, 9.3, 19]])),
        pred_masks=torch.ones(3, 1, 28, 28),
        mask_scores=torch.tensor([0.3, 0.2, 0.1]),
    )
    results = legacy_postprocess(instances, 50, 100)
    expected = [[5, 10, 16, 21], [75, 30, 100.5, 50.5], [4.5, 4.5, 5.15, 10]]
    torch.testing.assert_close(results.pred_boxes.tensor, torch.tensor(expected))
    assert results.image_size == (50, 100) and len(results.mask_scores) == 3
    # Legacy box (5, 10)-(15, 20); with the border of zeros (28 -> 30 cells) it becomes
    # (4.64, 9.64)-(15.36, 20.36), cut to (4, 9)-(15, 20): 12 pixels. The outer half cell of each
    # side (30 / 12 = 2.5 cells a pixel) is in the first pixel's reach, whose centre 1.25 - 0.5 lies
    # at 0.75 between border and mask: 0.75 > 0.5.
    rows, columns = results.pred_masks[0].nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 20, 4, 15)
    # Enlarged, the thin box would turn inside out: it is dropped.
    assert len(legacy_postprocess(copy.deepcopy(instances), 1000, 2000)) == 2


def test_switches_work_only_together():
    check_legacy_config(legacy_cfg())
    for key in LEGACY_SETTINGS:
        wrong = {
            "MODEL.LEGACY_BOXES": False,
            "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
            "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
            "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
        }.get(key, "Other")
        with pytest.raises(ValueError, match=key):
            check_legacy_config(legacy_cfg([key, wrong]))
    with pytest.raises(ValueError, match="MODEL.PROPOSAL_GENERATOR.NAME is 'RPN'"):
        build_model(legacy_cfg(["MODEL.PROPOSAL_GENERATOR.NAME", "RPN"]))


@pytest.mark.parametrize("extra", [[], ["MODEL.MASKIOU_ON", False]])
def test_model_trains_and_detects(extra):
    torch.manual_seed(0)
    model = build_model(legacy_cfg(extra))
    batch = tiny_batch()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert ("loss_maskiou" in losses) == (not extra)
    with torch.no_grad():
        outputs = model.eval()([{k: v for k, v in x.items() if k != "instances"} for x in batch])
    for output in outputs:
        found = output["instances"]
        assert len(found) and found.pred_masks.shape == (len(found), 64, 96)
        assert found.has("mask_scores") == (not extra)


def test_no_detections():
    torch.manual_seed(0)
    model = build_model(legacy_cfg(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0])).eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.zeros(3, 64, 96), "height": 32, "width": 48}])
    found = output["instances"]
    assert len(found) == 0 and found.pred_masks.shape == (0, 32, 48) and found.has("mask_scores")
