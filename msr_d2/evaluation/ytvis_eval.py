"""Average precision of tracks by the rules of YouTube-VIS.

The IoU of two tracks is the sum of their intersections over the frames, divided by the sum of
their unions; a frame without an object adds the area of the other one to the union. Areas are
means over the frames in which the object has pixels. Crowd tracks have no IoU of their own, but a
detection that matches one is not counted; and as in COCO (and other than an object, which is found
once) a crowd takes any number of detections. Everything else is as for COCO, with a video in the
place of an image.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .average_precision import average_precision
from .cells import cell_indices, common_cells
from .overlaps import Cell, Overlaps, Protocol
from .track_overlaps import MaskTrack, box_track_iou, mask_track_iou
from .ytvis_tracks import (
    annotated_area,
    check_results,
    mean_area,
    read_box_tracks,
    read_mask_tracks,
    track_areas,
)
from .ytvis_truth import PathLike, check_ground_truth, is_withheld, load_ytvis, tasks_of

YTVIS_AREAS = {
    "all": (0, 1e5**2),
    "small": (0, 128**2),
    "medium": (128**2, 256**2),
    "large": (256**2, 1e5**2),
}
_KEY_OF_TASK = {"bbox": "bboxes", "segm": "segmentations"}


def evaluate_ytvis_results(
    gt_json: PathLike,
    results_json: PathLike,
    tasks: Sequence[str] | None = None,
    *,
    max_dets_per_video: int = 100,
) -> dict[str, dict[str, float]]:
    """Evaluate a results file in YouTube-VIS format.

    Args:
        gt_json: ground truth with annotations.
        results_json: list of ``{"video_id", "category_id", "score", "segmentations"}`` with one
            compressed RLE or null for each frame, and/or ``"bboxes"`` (x, y, width, height).
        tasks: of "bbox" and "segm". By default those that the results contain; where the ground
            truth has no masks, "bbox" of the tight boxes of the results' masks.
        max_dets_per_video: limit on the detections per video and category.

    Returns:
        for each task ``AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl`` and
        ``AP-<category>`` in percent; NaN where there is no ground truth.

    Raises:
        ValueError: the ground truth has no annotations, or an entry of a file is not valid.
    """
    ground_truth = load_ytvis(gt_json)
    if is_withheld(ground_truth):
        raise ValueError(
            f"{gt_json} has no annotations (or an empty list of them), as the public files for "
            "validation and test: only the evaluation server can evaluate the results"
        )
    with open(results_json) as file:
        results = json.load(file)
    if not isinstance(results, list):
        raise ValueError(f"{results_json} holds a {type(results).__name__}, not a list of results")
    if tasks is None:
        tasks = [t for t, key in _KEY_OF_TASK.items() if all(key in x for x in results)]
        if not tasks:
            raise ValueError(
                f"not all results of {results_json} have 'bboxes', nor all 'segmentations': name "
                "the tasks, or write one of them in each result"
            )
        tasks = tasks_of(ground_truth, tasks, gt_json)
    return {x: evaluate_ytvis(ground_truth, results, x, max_dets_per_video) for x in tasks}


def evaluate_ytvis(
    ground_truth: dict[str, Any], results: Sequence[dict], task: str, max_dets_per_video: int = 100
) -> dict[str, float]:
    """The numbers of one task, see :func:`evaluate_ytvis_results`, from loaded files."""
    protocol = Protocol(YTVIS_AREAS, (1, 10, max_dets_per_video))
    overlaps = ytvis_overlaps(ground_truth, results, task, protocol.iou_thresholds[0])
    scores = np.array([x["score"] for x in results], dtype=np.float64)
    result = average_precision(overlaps, scores, protocol)
    categories = sorted(ground_truth["categories"], key=lambda x: x["id"])
    per_category = zip(categories, result.category_ap())
    return {**result.metrics(), **{f"AP-{c['name']}": float(ap) for c, ap in per_category}}


def ytvis_overlaps(
    ground_truth: dict[str, Any], results: Sequence[dict], task: str, min_iou: float = 0.0
) -> Overlaps:
    """Compute the IoU of every detected track with the true ones of its video and category.

    Args:
        ground_truth: content of a json file in YouTube-VIS format.
        results: N detected tracks; they keep their order.
        task: "bbox" or "segm"; masks that are compressed RLEs are not encoded again.
        min_iou: for speed, an IoU below this may be returned too small.

    Raises:
        ValueError: an entry is not valid, with its id or number and what is wrong.
    """
    if task not in _KEY_OF_TASK:
        raise ValueError(f"task is {task!r}: use one of {sorted(_KEY_OF_TASK)}")
    check_ground_truth(ground_truth)
    videos = {x["id"]: x for x in ground_truth["videos"]}
    video_index = {x: i for i, x in enumerate(sorted(videos))}
    category_ids = sorted(x["id"] for x in ground_truth["categories"])
    category_index = {x: i for i, x in enumerate(category_ids)}
    check_results(results, videos, category_index)
    truths = ground_truth["annotations"]

    read = read_mask_tracks if task == "segm" else read_box_tracks
    det_tracks, gt_tracks = read(results, videos), read(truths, videos, "annotation")
    det_cell = cell_indices(results, "video_id", video_index, category_index)
    gt_cell = cell_indices(truths, "video_id", video_index, category_index)
    return Overlaps(
        det_image=det_cell[0],
        det_category=det_cell[1],
        det_area=np.array([mean_area(track_areas(x)) for x in det_tracks], dtype=np.float64),
        gt_image=gt_cell[0],
        gt_category=gt_cell[1],
        gt_area=np.array(
            [annotated_area(x, t) for x, t in zip(truths, gt_tracks)], dtype=np.float64
        ),
        gt_crowd=np.array([bool(x.get("iscrowd", 0)) for x in truths], dtype=bool),
        cells=_cells(det_tracks, gt_tracks, det_cell, gt_cell, min_iou),
        num_categories=len(category_index),
    )


def _cells(
    det_tracks: Sequence[MaskTrack] | Sequence[np.ndarray],
    gt_tracks: Sequence[MaskTrack] | Sequence[np.ndarray],
    det_cell: tuple[np.ndarray, np.ndarray],
    gt_cell: tuple[np.ndarray, np.ndarray],
    min_iou: float,
) -> list[Cell]:
    """IoUs of the tracks, which are masks or boxes, for each video and category with both."""
    cells = []
    for own in _by_video(common_cells(det_cell, gt_cell), det_cell[0]):
        # All categories of a video in one go are faster than one by one.
        det, gt = (np.concatenate(x) for x in zip(*own))
        tracks = [det_tracks[i] for i in det], [gt_tracks[i] for i in gt]
        if isinstance(tracks[0][0], MaskTrack):
            same_category = det_cell[1][det, None] == gt_cell[1][gt]
            ious = mask_track_iou(*tracks, min_iou, same_category)
        else:
            ious = box_track_iou(*tracks)
        cells += [Cell(d, g, ious[np.ix_(np.isin(det, d), np.isin(gt, g))]) for d, g in own]
    return cells


def _by_video(
    cells: Iterable[tuple[np.ndarray, np.ndarray]], det_video: np.ndarray
) -> Iterable[list[tuple[np.ndarray, np.ndarray]]]:
    """Indices of detections and ground truths of each cell, in lists by video."""
    videos = defaultdict(list)
    for det, gt in cells:
        videos[det_video[det[0]]].append((det, gt))
    return videos.values()
