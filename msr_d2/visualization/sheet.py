"""Contact sheets: input, ground truth and prediction of several images in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances

from .canvas import text_strip, to_rgb
from .masks import prediction_masks, read_ground_truth, true_mask_iou
from .overlay import draw_ground_truth, draw_instances, legend_lines, select_instances

_GAP = 8  # pixels between the panels
_PAPER = 255
_TEXT_SIZE = 15  # pixels


@dataclass
class Sample:
    """One row of a contact sheet.

    Attributes:
        image: (H, W, 3) RGB or (H, W) gray picture.
        instances: detections at the size of the picture.
        ground_truth: `Instances` with `gt_*`, annotations of a dataset dict, or None if unknown.
        title: written above the input, for example the file name.
    """

    image: np.ndarray
    instances: Instances
    ground_truth: Instances | Sequence[dict[str, Any]] | None = None
    title: str = "input"


def contact_sheet(
    samples: Sequence[Sample],
    class_names: Sequence[str] | None = None,
    *,
    score_threshold: float = 0.4,
    threshold_on: str = "mask_scores",
) -> np.ndarray:
    """Input | ground truth | prediction, one row for each sample, and one legend below all rows.

    Where masks of the ground truth are known, the labels of the prediction tell the true MaskIoU
    beside the predicted one.

    Args:
        samples: the rows; the ground-truth panel is left out where it is None.
        class_names: name of each contiguous class index.
        score_threshold: see :func:`draw_instances`.
        threshold_on: see :func:`draw_instances`.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: no samples, or one that :func:`draw_instances` refuses.
    """
    if not samples:
        raise ValueError("a contact sheet needs at least one sample")
    rows, legend = [], []
    for sample in samples:
        true_iou = _true_iou_or_none(sample)
        rows.append(_row(sample, class_names, score_threshold, threshold_on, true_iou))
        field, _ = select_instances(sample.instances, score_threshold, threshold_on)
        lines = legend_lines(
            sample.instances, field, score_threshold, has_true_iou=true_iou is not None
        )
        legend = max(legend, lines, key=lambda x: len("".join(x)))
    sheet = tile(rows)
    return np.concatenate([sheet, text_strip(legend, sheet.shape[1], _TEXT_SIZE)])


def side_by_side(
    image_rgb: np.ndarray,
    instances: Instances,
    class_names: Sequence[str] | None = None,
    *,
    ground_truth: Instances | Sequence[dict[str, Any]] | None = None,
    score_threshold: float = 0.4,
    threshold_on: str = "mask_scores",
    title: str = "input",
) -> np.ndarray:
    """A contact sheet with one row; the arguments are those of :class:`Sample` and the sheet."""
    sample = Sample(image_rgb, instances, ground_truth, title)
    return contact_sheet(
        [sample], class_names, score_threshold=score_threshold, threshold_on=threshold_on
    )


def tile(pictures: Sequence[np.ndarray], columns: int = 1) -> np.ndarray:
    """Put pictures of any sizes on a grid, row by row, on white paper.

    Args:
        pictures: (H, W, 3) uint8 arrays.
        columns: pictures in a row.
    """
    lines = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    widths = [max(x[c].shape[1] for x in lines if c < len(x)) for c in range(len(lines[0]))]
    heights = [max(picture.shape[0] for picture in line) for line in lines]
    size = (sum(heights) + _GAP * (len(heights) - 1), sum(widths) + _GAP * (len(widths) - 1), 3)
    sheet = np.full(size, _PAPER, dtype=np.uint8)
    for row, line in enumerate(lines):
        top = sum(heights[:row]) + _GAP * row
        for column, picture in enumerate(line):
            left = sum(widths[:column]) + _GAP * column
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _row(
    sample: Sample,
    class_names: Sequence[str] | None,
    score_threshold: float,
    threshold_on: str,
    true_iou: np.ndarray | None,
) -> np.ndarray:
    image = to_rgb(sample.image)
    prediction = draw_instances(
        image,
        sample.instances,
        class_names,
        score_threshold=score_threshold,
        threshold_on=threshold_on,
        true_iou=true_iou,
        legend=False,
    )
    panels = [(sample.title, draw_ground_truth(image, [])), ("prediction", prediction)]
    if sample.ground_truth is not None:
        truth = draw_ground_truth(image, sample.ground_truth, class_names)
        panels.insert(1, ("ground truth", truth))
    titled = [
        np.concatenate([text_strip([title], panel.shape[1], _TEXT_SIZE), panel])
        for title, panel in panels
    ]
    return tile(titled, columns=len(titled))


def _true_iou_or_none(sample: Sample) -> np.ndarray | None:
    """(N,) true MaskIoU, or None where the sample has no masks on one of its sides."""
    size = np.asarray(sample.image).shape[:2]
    if sample.ground_truth is None or prediction_masks(sample.instances, size) is None:
        return None
    if read_ground_truth(sample.ground_truth, size).masks is None:
        return None
    return true_mask_iou(sample.instances, sample.ground_truth, size)
