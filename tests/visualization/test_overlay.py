import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances

from msr_d2.testing import rectangle_instances
from msr_d2.visualization import (
    Sample,
    contact_sheet,
    draw_ground_truth,
    draw_instances,
    side_by_side,
)
from msr_d2.visualization import overlay as overlay_module
from msr_d2.visualization.masks import read_ground_truth, true_mask_iou
from msr_d2.visualization.overlay import legend_lines, select_instances
from msr_d2.visualization.sheet import tile
from msr_d2.visualization.style import class_color

NAMES = ["circle", "square", "triangle"]


def detections(rectangles, classes, scores, mask_iou=None, size=(64, 96), masks=True):
    """Instances whose masks are rectangles (x1, y1, x2, y2)."""
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.tensor(rectangles, dtype=torch.float32).reshape(-1, 4))
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    if masks:
        instances.pred_masks = torch.zeros(len(rectangles), *size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(instances.pred_masks, rectangles):
            mask[y1:y2, x1:x2] = True
    if mask_iou is not None:
        instances.mask_iou = torch.tensor(mask_iou, dtype=torch.float32)
        instances.mask_scores = instances.scores * instances.mask_iou
    return instances


def blank(size=(64, 96)):
    return np.full((*size, 3), 128, dtype=np.uint8)


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the canvas: the objects and the legend of each picture."""
    calls = []
    original = overlay_module.draw_objects

    def spy(image, objects, legend, **kwargs):
        calls.append((objects, legend))
        return original(image, objects, legend, **kwargs)

    monkeypatch.setattr(overlay_module, "draw_objects", spy)
    return calls


def test_a_label_tells_all_three_numbers(drawn):
    draw_instances(blank(), detections([(10, 20, 50, 60)], [1], [0.93], [0.81]), NAMES)
    (objects, legend) = drawn[0]
    assert objects[0].text == ["square 0.93", "IoU 0.81", "mask 0.75"]
    assert legend == [
        "first number: class score",
        "IoU: predicted MaskIoU",
        "mask: mask score = class score × IoU",
        "shown: mask score ≥ 0.4 (1 of 1)",
    ]


def test_plain_mask_rcnn_has_one_number(drawn):
    draw_instances(blank(), detections([(10, 20, 50, 60)], [1], [0.93]), NAMES)
    (objects, legend) = drawn[0]
    assert objects[0].text == ["square 0.93"]
    assert legend == ["first number: class score", "shown: class score ≥ 0.4 (1 of 1)"]


def test_the_true_iou_stands_beside_the_predicted_one(drawn):
    instances = detections([(10, 20, 50, 60)], [1], [0.9], [0.8])
    draw_instances(blank(), instances, NAMES, true_iou=np.array([0.5]))
    assert drawn[0][0][0].text == ["square 0.90", "IoU 0.80 (true 0.50)", "mask 0.72"]


def test_overwritten_scores_still_show_the_class_score(drawn):
    instances = detections([(10, 20, 50, 60)], [1], [0.9], [0.8])
    instances.class_scores, instances.scores = instances.scores, instances.mask_scores
    draw_instances(blank(), instances, NAMES)
    assert drawn[0][0][0].text == ["square 0.90", "IoU 0.80", "mask 0.72"]


def test_a_small_negative_iou_is_not_minus_zero(drawn):
    instances = detections([(10, 20, 50, 60)], [1], [0.9], [-0.001])
    draw_instances(blank(), instances, NAMES, score_threshold=-1)
    assert drawn[0][0][0].text == ["square 0.90", "IoU 0.00", "mask 0.00"]


@pytest.mark.parametrize("names", [None, [], ["only one"]])
def test_a_class_without_a_name_is_its_index(drawn, names):
    draw_instances(blank(), detections([(10, 20, 50, 60)], [2], [0.9]), names)
    assert drawn[0][0][0].text == ["class 2 0.90"]


def test_the_legend_claims_no_product_where_there_is_none():
    instances = detections([(10, 20, 50, 60)], [1], [0.9], [0.8])
    instances.mask_scores = instances.mask_iou
    assert legend_lines(instances, "scores", 0.5)[2] == "mask: mask score"


def test_selection_is_by_the_named_score_and_sorted():
    instances = detections([(0, 0, 9, 9)] * 3, [0] * 3, [0.9, 0.5, 0.6], [0.4, 0.9, 0.9])
    field, chosen = select_instances(instances, 0.45, "mask_scores")  # 0.36, 0.45, 0.54
    assert field == "mask_scores" and chosen.tolist() == [2, 1]
    field, chosen = select_instances(instances, 0.55, "scores")
    assert field == "scores" and chosen.tolist() == [0, 2]


def test_selection_falls_back_to_class_scores_and_drops_nan():
    instances = detections([(0, 0, 9, 9)] * 2, [0] * 2, [float("nan"), 0.6])
    field, chosen = select_instances(instances, 0.5, "mask_scores")
    assert field == "scores" and chosen.tolist() == [1]


def test_the_mask_is_painted_in_the_color_of_its_class():
    picture = draw_instances(
        blank((600, 800)),
        detections([(100, 200, 400, 500)], [1], [0.9], size=(600, 800)),
        alpha=1.0,
        legend=False,
    )
    assert picture.shape == (600, 800, 3)
    assert picture[350, 250].tolist() == list(class_color(1))
    assert picture[100, 600].tolist() == [128, 128, 128]


def test_small_pictures_are_enlarged_and_large_ones_are_not():
    empty = detections([], [], [], [], size=(160, 160))
    assert draw_instances(blank((160, 160)), empty, legend=False).shape == (640, 640, 3)
    empty = detections([], [], [], [], size=(480, 700))
    assert draw_instances(blank((480, 700)), empty, legend=False).shape == (480, 700, 3)


@pytest.mark.parametrize("mask_iou", [None, []])
def test_no_instances(mask_iou):
    picture = draw_instances(blank(), detections([], [], [], mask_iou), NAMES)
    assert picture.dtype == np.uint8 and picture.shape[0] > 64


def test_a_mask_of_one_pixel_is_visible():
    instances = detections([(30, 40, 31, 41)], [1], [0.9], [0.8])
    without = draw_instances(blank(), instances, draw_boxes=False, legend=False, alpha=0.0)
    scale = without.shape[0] // 64
    y, x = 40 * scale + scale // 2, 30 * scale + scale // 2
    assert draw_instances(blank(), instances, draw_boxes=False, legend=False, alpha=1.0)[
        y, x
    ].tolist() == list(class_color(1))


def test_an_empty_mask_and_a_box_outside_are_no_problem():
    instances = detections([(30, 40, 30, 40), (200, 200, 210, 210)], [1, 0], [0.9, 0.9], [1, 1])
    assert draw_instances(blank(), instances, NAMES).dtype == np.uint8


def test_detections_without_masks():
    instances = detections([(30, 10, 60, 50)], [1], [0.9], masks=False)
    picture = draw_instances(blank(), instances, NAMES, legend=False)
    assert (picture != 128).any()


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 1)])
def test_gray_pictures(shape):
    picture = draw_instances(np.full(shape, 77, np.uint8), detections([], [], []), legend=False)
    assert picture.shape[2] == 3 and (picture == 77).all()


def test_the_input_is_not_changed():
    image = blank((640, 640))
    instances = detections([(30, 40, 300, 400)], [1], [0.9], [0.8], size=(640, 640))
    draw_instances(image, instances, NAMES)
    assert (image == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (2, 2000)])
def test_extreme_shapes_have_room_for_labels(size):
    instances = detections([(0, 0, size[1], size[0])], [0], [0.9], [0.8], size=size)
    picture = draw_instances(blank(size), instances, NAMES, legend=False)
    assert picture.shape[0] >= 120 and picture.shape[1] >= 320


def test_a_huge_picture():
    size = (3000, 4000)
    rectangles = [(100 * i, 80 * i, 100 * i + 900, 80 * i + 700) for i in range(20)]
    instances = detections(rectangles, [0] * 20, [0.9] * 20, [0.8] * 20, size=size)
    assert draw_instances(blank(size), instances, NAMES, legend=False).shape == (*size, 3)


def test_bad_arguments_are_named():
    instances = detections([(10, 20, 50, 60)], [1], [0.93], [0.81])
    with pytest.raises(ValueError, match=r"\(64, 96, 4\)"):
        draw_instances(np.zeros((64, 96, 4), np.uint8), instances)
    with pytest.raises(ValueError, match=r"pred_masks has masks of shape \(64, 96\)"):
        draw_instances(blank((32, 48)), instances)
    with pytest.raises(ValueError, match="mask_score'"):
        draw_instances(blank(), instances, threshold_on="mask_score")
    with pytest.raises(ValueError, match="2 values for 1 detections"):
        draw_instances(blank(), instances, true_iou=np.zeros(2))


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_ground_truth_of_instances(drawn, masks):
    truth = rectangle_instances([(10, 20, 50, 60)], [2], masks=masks)
    draw_ground_truth(blank(), truth, NAMES)
    item = drawn[0][0][0]
    assert item.text == ["triangle"] and item.color == class_color(2)
    assert item.mask[20:60, 10:50].all() and item.mask.sum() == 40 * 40


def annotation(segmentation, **more):
    return {
        "bbox": [10, 20, 40, 40],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "segmentation": segmentation,
        **more,
    }


POLYGON = [[10.0, 20, 50, 20, 50, 60, 10, 60]]
# Column-wise runs of the same rectangle in 64 x 96 pixels: 10 columns and 20 rows of background,
# then 40 columns of 40 pixels with gaps of 24, then the rest.
RUNS = [10 * 64 + 20, *([40, 24] * 39), 40, 4 + 46 * 64]


@pytest.mark.parametrize("segmentation", [POLYGON, {"size": [64, 96], "counts": RUNS}])
def test_ground_truth_of_annotations(segmentation):
    truth = read_ground_truth([annotation(segmentation)], (64, 96))
    assert truth.boxes.tolist() == [[10, 20, 50, 60]]
    assert truth.masks[0][20:60, 10:50].all() and truth.masks[0].sum() == 40 * 40


def test_crowds_are_marked_and_boxes_need_no_masks(drawn):
    plain = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 1}
    draw_ground_truth(blank(), [plain], NAMES)
    assert drawn[0][0][0].text == ["circle (crowd)"] and drawn[0][0][0].mask is None


def test_true_mask_iou_by_hand():
    """40 x 40 truth. A 20 x 40 half has IoU 800 / 1600; a copy moved by 20: 800 / 2400."""
    truth = rectangle_instances([(10, 20, 50, 60)], [1])
    instances = detections(
        [(10, 20, 30, 60), (30, 20, 70, 60), (10, 20, 50, 60), (10, 20, 50, 60)],
        [1, 1, 1, 0],
        [0.9] * 4,
    )
    assert true_mask_iou(instances, truth, (64, 96)) == pytest.approx([0.5, 1 / 3, 1.0, 0.0])


def test_true_mask_iou_ignores_crowds_and_empty_sides():
    instances = detections([(10, 20, 50, 60)], [1], [0.9])
    assert true_mask_iou(instances, [annotation(POLYGON, iscrowd=1)], (64, 96)).tolist() == [0]
    assert true_mask_iou(instances, [], (64, 96)).tolist() == [0]
    none = detections([], [], [])
    assert true_mask_iou(none, [annotation(POLYGON)], (64, 96)).shape == (0,)


def test_a_sheet_has_three_panels_and_the_true_iou(drawn):
    instances = detections([(10, 20, 30, 60)], [1], [0.9], [0.8])
    truth = rectangle_instances([(10, 20, 50, 60)], [1])
    sheet = side_by_side(blank(), instances, NAMES, ground_truth=truth)
    assert sheet.shape[1] == 3 * 96 * 7 + 2 * 8  # 96 pixels times 7 are the first above 600
    texts = [objects[0].text for objects, _ in drawn if objects]
    assert texts == [["square 0.90", "IoU 0.80 (true 0.50)", "mask 0.72"], ["square"]]


def test_a_sheet_of_different_samples():
    """Without ground truth, without masks, empty, and of another size."""
    truth = rectangle_instances([(10, 20, 50, 60)], [1])
    samples = [
        Sample(blank(), detections([(10, 20, 30, 60)], [1], [0.9]), truth),
        Sample(blank(), detections([(10, 20, 30, 60)], [1], [0.9], masks=False), truth),
        Sample(blank((300, 200)), detections([], [], [], [], size=(300, 200))),
    ]
    assert contact_sheet(samples, NAMES).dtype == np.uint8
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_tiles_of_different_sizes():
    small, large = np.zeros((2, 3, 3), np.uint8), np.full((5, 4, 3), 9, np.uint8)
    sheet = tile([small, large, large], columns=2)
    assert sheet.shape == (5 + 8 + 5, 4 + 8 + 4, 3)
    assert (
        (sheet[:2, :3] == 0).all() and (sheet[:5, 12:] == 9).all() and (sheet[13:, :4] == 9).all()
    )
    assert (sheet[13:, 12:] == 255).all()
