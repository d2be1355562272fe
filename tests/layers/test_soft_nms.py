import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from msr_d2.layers import soft_nms


def greedy_per_class(boxes, scores, classes, method, sigma, iou_threshold, score_threshold, topk):
    """The published algorithm: class by class, box by box, and the best of all at the end."""
    found = []
    for cls in classes.unique().tolist():
        left = [(scores[i].item(), i) for i in (classes == cls).nonzero()[:, 0].tolist()]
        while left:
            score, best = max(left, key=lambda entry: (entry[0], -entry[1]))
            left.remove((score, best))
            if score > score_threshold:
                found.append((score, best))
            decayed = []
            for other_score, other in left:
                iou = box_iou(boxes[best][None], boxes[other][None]).item()
                if method == "gaussian":
                    other_score *= math.exp(-iou * iou / sigma)
                elif iou > iou_threshold:
                    other_score *= 1 - iou
                decayed.append((other_score, other))
            left = decayed
    return sorted(found, reverse=True)[: topk if topk >= 0 else None]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    method=st.sampled_from(["gaussian", "linear"]),
    topk=st.sampled_from([-1, 3, 100]),
)
def test_equals_the_greedy_loop(seed, method, topk):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(15, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(15, 2, generator=generator) * 15], 1)
    scores = torch.rand(15, generator=generator)
    classes = torch.randint(0, 3, (15,), generator=generator)
    options = dict(method=method, sigma=0.6, iou_threshold=0.3, score_threshold=0.05, topk=topk)
    kept, kept_scores = soft_nms(boxes, scores, classes, **options)
    expected = greedy_per_class(boxes, scores, classes, **options)
    assert kept.tolist() == [index for _, index in expected]
    torch.testing.assert_close(
        kept_scores, torch.tensor([score for score, _ in expected]), rtol=1e-5, atol=1e-6
    )


def test_hand_computed():
    # IoU of the first two boxes is 1/3; the third is far away, the fourth of another class.
    boxes = torch.tensor([[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60], [0, 0, 10, 10.0]])
    scores, classes = torch.tensor([0.9, 0.8, 0.3, 0.5]), torch.tensor([0, 0, 0, 1])
    kept, decayed = soft_nms(boxes, scores, classes, method="gaussian", sigma=0.5)
    second = 0.8 * math.exp(-((1 / 3) ** 2) / 0.5)
    assert kept.tolist() == [0, 1, 3, 2]
    torch.testing.assert_close(decayed, torch.tensor([0.9, second, 0.5, 0.3]))


def test_narrow_gaussian_is_hard_nms_for_identical_boxes():
    boxes = torch.tensor([[0, 0, 10, 10.0]]).repeat(4, 1)
    scores, classes = torch.tensor([0.5, 0.9, 0.7, 0.6]), torch.tensor([0, 0, 1, 1])
    kept, _ = soft_nms(boxes, scores, classes, sigma=0.01)
    assert kept.tolist() == batched_nms(boxes, scores, classes, 0.5).tolist()


def test_no_boxes():
    kept, scores = soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    assert kept.shape == (0,) and kept.dtype == torch.long and scores.shape == (0,)


def test_unknown_method():
    with pytest.raises(ValueError, match="'medium' is unknown"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1).long(), method="medium")
