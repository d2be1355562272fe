import pytest
import torch
from detectron2.structures import Boxes, Instances

from msr_d2.mask_scoring.inference import add_mask_scores, combine_scores, soft_nms_inference

OPTIONS = {"method": "gaussian", "sigma": 0.6, "score_threshold": 0.001, "topk": 100}


def detections(scores):
    count = len(scores)
    return Instances(
        (10, 10),
        pred_boxes=Boxes(torch.zeros(count, 4)),
        pred_classes=torch.zeros(count, dtype=torch.long),
        scores=torch.tensor(scores),
    )


def test_product_of_both_scores_over_images():
    first, second = detections([0.8, 0.5]), detections([1.0])
    add_mask_scores([first, second], torch.tensor([0.5, -0.2, 0.9]))
    torch.testing.assert_close(first.mask_scores, torch.tensor([0.4, -0.1]))  # not clamped
    torch.testing.assert_close(second.mask_scores, torch.tensor([0.9]))
    assert first.scores.tolist() == pytest.approx([0.8, 0.5])


def test_maskiou_alone():
    alone = combine_scores(torch.tensor([0.5]), torch.tensor([0.7]), "maskiou")
    assert alone.item() == pytest.approx(0.7)
    with pytest.raises(ValueError, match="SCORE is 'mean'"):
        combine_scores(torch.zeros(1), torch.zeros(1), "mean")


def test_overwriting_twice_multiplies_once():
    image = detections([0.8])
    for _ in range(2):
        add_mask_scores([image], torch.tensor([0.5]), overwrite_scores=True)
    assert image.scores.item() == pytest.approx(0.4)
    assert image.class_scores.item() == pytest.approx(0.8)


@pytest.mark.parametrize("width", [4, 12])  # class-agnostic, and three classes
def test_soft_nms_without_usable_proposals(width):
    nothing = [torch.zeros(0, width)], [torch.zeros(0, 4)]
    diverged = [torch.full((5, width), float("nan"))], [torch.full((5, 4), float("nan"))]
    for boxes, probabilities in (nothing, diverged):
        (image,) = soft_nms_inference(boxes, probabilities, [(10, 10)], OPTIONS)
        assert len(image) == 0
        assert image.pred_boxes.tensor.shape == (0, 4) and image.pred_classes.shape == (0,)


def test_soft_nms_takes_the_box_of_the_class():
    # Two classes with boxes of their own for one proposal; the second box leaves the image.
    boxes = torch.tensor([[0.0, 0, 5, 5, 4, 4, 20, 20]])
    (image,) = soft_nms_inference([boxes], [torch.tensor([[0.2, 0.7, 0.1]])], [(10, 10)], OPTIONS)
    assert image.pred_classes.tolist() == [1, 0]
    assert image.pred_boxes.tensor.tolist() == [[4, 4, 10, 10], [0, 0, 5, 5]]
    torch.testing.assert_close(image.scores, torch.tensor([0.7, 0.2]))
