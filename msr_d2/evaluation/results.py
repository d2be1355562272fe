"""Evaluation of result files, without a model."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from typing import Union

import numpy as np
from pycocotools.coco import COCO

from .average_precision import EvaluationResult, average_precision
from .coco_overlaps import coco_overlaps, complete_annotations
from .mask_scoring_results import evaluate_mask_scores
from .overlaps import Protocol

PathLike = Union[str, "os.PathLike[str]"]
_KEY_OF_TASK = {"bbox": "bbox", "segm": "segmentation"}


def evaluate_coco_results(
    gt_json: PathLike,
    results_json: PathLike,
    tasks: Sequence[str] | None = None,
    *,
    max_dets_per_image: int = 100,
    img_ids: Sequence | None = None,
    oracle: bool = False,
) -> dict[str, dict[str, float]]:
    """Evaluate a file in COCO's result format; the numbers are those of pycocotools.

    Args:
        gt_json: ground truth in COCO format.
        results_json: a list of ``{"image_id", "category_id", "score"}`` with ``"bbox"`` and/or
            ``"segmentation"`` (compressed RLE). Entries that have a ``mask_score`` too, as those
            of ``coco_instances_results.json``, are ranked by it for masks, and the tasks
            ``segm_class_score`` and ``mask_scoring`` are added.
        tasks: of "bbox" and "segm"; those that the results contain by default.
        max_dets_per_image: limit on the detections per image and category.
        img_ids: evaluate only these images, all of the ground truth by default.
        oracle: with mask scores, also the upper bound ``segm_oracle``.

    Returns:
        for each task ``AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl`` and
        ``AP-<category>`` in percent; NaN where there is no ground truth.
    """
    coco_gt = _load_ground_truth(gt_json)
    results = _load_results(results_json)
    if img_ids is not None:
        wanted = set(img_ids)
        results = [x for x in results if x["image_id"] in wanted]
    if tasks is None:
        tasks = [t for t, key in _KEY_OF_TASK.items() if all(key in x for x in results)]
    protocol = Protocol(max_detections=(1, 10, max_dets_per_image))
    names = [coco_gt.cats[i]["name"] for i in sorted(coco_gt.getCatIds())]

    evaluated = {}
    for task in tasks:
        overlaps = coco_overlaps(coco_gt, results, task, img_ids)
        if task == "segm" and results and all("mask_score" in x for x in results):
            scored = evaluate_mask_scores(overlaps, results, protocol, oracle)
            evaluated.update({k: _metrics(v, names) for k, v in scored.rankings.items()})
            evaluated["mask_scoring"] = scored.summary()
        else:
            scores = np.array([x["score"] for x in results])
            evaluated[task] = _metrics(average_precision(overlaps, scores, protocol), names)
    return evaluated


def _load_ground_truth(path: PathLike) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            coco_gt = COCO(os.fspath(path))
        except AssertionError as error:
            raise ValueError(
                f"{path} holds no ground truth, in COCO's or YouTube-VIS's format: {error}"
            ) from error
    if "annotations" not in coco_gt.dataset:
        raise ValueError(
            f"{path} has no annotations, as the files of test sets: only its test server can "
            "evaluate the results"
        )
    complete_annotations(coco_gt)
    return coco_gt


def _load_results(path: PathLike) -> list[dict]:
    with open(path) as file:
        results = json.load(file)
    if not isinstance(results, list):
        raise ValueError(
            f"{path} holds a {type(results).__name__}, not a list of results: a file in COCO's "
            'result format is a list of {"image_id", "category_id", "score", ...}'
        )
    for key in ("image_id", "category_id", "score"):
        missing = next((i for i, x in enumerate(results) if key not in x), None)
        if missing is not None:
            raise ValueError(f"entry {missing} of {path} has no {key!r}")
    return results


def _metrics(result: EvaluationResult, names: Sequence[str]) -> dict[str, float]:
    per_category = {f"AP-{n}": float(ap) for n, ap in zip(names, result.category_ap())}
    return {**result.metrics(), **per_category}
