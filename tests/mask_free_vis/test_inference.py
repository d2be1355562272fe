import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import BitMasks

from msr_d2.mask_free_vis.inference import (
    Selection,
    chunks,
    encode_masks,
    image_instances,
    resize_masks,
    select,
    tight_boxes,
    unique_queries,
    windows,
)


@pytest.mark.parametrize("length, size", [(7, 3), (6, 3), (2, 8), (5, 0), (1, 1)])
def test_chunks_cover_every_frame_once(length, size):
    frames = list(range(length))
    parts = [frames[part] for part in chunks(length, size)]
    assert sum(parts, []) == frames
    assert all(len(part) <= (size or length) for part in parts)


def test_windows_share_the_overlap():
    assert windows(10, 4, 1) == [slice(0, 4), slice(3, 7), slice(6, 10)]
    # The last one is moved back to be full.
    assert windows(11, 4, 1) == [slice(0, 4), slice(3, 7), slice(6, 10), slice(7, 11)]
    assert windows(4, 4, 1) == [slice(0, 4)]


@pytest.mark.parametrize("length", range(5, 40))
def test_windows_leave_no_gap(length):
    parts = windows(length, 5, 2)
    assert parts[0].start == 0 and parts[-1].stop == length
    for before, after in zip(parts, parts[1:]):
        assert before.start < after.start <= before.stop - 2


@pytest.mark.parametrize("overlap", [0, 5, 6])
def test_windows_must_overlap(overlap):
    with pytest.raises(ValueError, match="WINDOW_OVERLAP"):
        windows(20, 5, overlap)


def test_select_takes_pairs_of_query_and_class():
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.45, 0.05, 0.5], [0.02, 0.03, 0.95]])
    selection = select(probabilities.log(), 3)
    torch.testing.assert_close(selection.scores, torch.tensor([0.6, 0.45, 0.1]))
    assert selection.labels.tolist() == [1, 0, 0]
    assert selection.queries.tolist() == [0, 1, 0]
    unique, places = unique_queries(selection.queries)
    assert unique[places].tolist() == [0, 1, 0] and len(unique) == 2


def test_select_of_fewer_pairs_than_asked_for():
    assert len(select(torch.zeros(2, 3), 100).scores) == 4


def test_masks_are_resized_in_two_steps():
    """Padded 8 x 8, image 8 x 4, output 16 x 8: the padded half must not be seen."""
    logits = torch.full((1, 4, 4), -1.0)
    logits[..., :2] = 1.0
    resized = resize_masks(logits, (8, 8), (8, 4), (16, 8))
    assert resized.shape == (1, 16, 8)
    assert (resized[..., :7] > 0).all()
    same = resize_masks(logits, (4, 4), (4, 4), (4, 4))
    torch.testing.assert_close(same, logits)


def test_tight_boxes_are_those_of_detectron2():
    masks = torch.rand(20, 9, 13, generator=torch.Generator().manual_seed(0)) > 0.97
    masks[3] = False
    masks[4] = True
    assert torch.equal(tight_boxes(masks), BitMasks(masks).get_bounding_boxes().tensor)
    assert tight_boxes(masks[:0]).shape == (0, 4)


def test_encoding_is_that_of_each_mask():
    masks = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[1] = False
    rles = encode_masks(masks)
    assert rles[1] is None
    for index in (0, 2):
        assert isinstance(rles[index]["counts"], str)  # ready for json
        np.testing.assert_array_equal(mask_util.decode(rles[index]), masks[index].numpy())


def test_image_scores_are_class_times_mean_mask_probability():
    logits = torch.full((2, 4, 4), -9.0)
    logits[0, 1:3, 1:4] = 2.0
    selection = Selection(torch.tensor([0.5, 0.4]), torch.tensor([3, 1]), torch.tensor([0, 1]))
    instances = image_instances(selection, logits, (4, 4))
    torch.testing.assert_close(instances.scores[0], 0.5 * torch.tensor(2.0).sigmoid())
    assert instances.scores[1] == 0  # an empty mask
    assert instances.pred_boxes.tensor[0].tolist() == [1, 1, 4, 3]
    assert instances.pred_classes.tolist() == [3, 1]
