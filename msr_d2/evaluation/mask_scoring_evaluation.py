"""COCO evaluation of models whose masks have their own score (arXiv 1903.00241)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence

import numpy as np
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from .average_precision import EvaluationResult, average_precision
from .coco_overlaps import coco_overlaps, complete_annotations
from .mask_iou_statistics import figure2_table, format_figure2_table
from .mask_scoring_results import MaskScoringResults, evaluate_mask_scores, segmentation_results
from .overlaps import Protocol

SEGM_RESULTS_FILE = "coco_segm_results.json"
PAIRS_FILE = "mask_scoring_pairs.npz"

_TITLES = {
    "segm": "Mask AP, ranked by the mask score:",
    "segm_class_score": "Mask AP, ranked by the class score:",
    "segm_oracle": "Mask AP, ranked by class score x true MaskIoU (an upper bound):",
}


class MaskScoringCOCOEvaluator(COCOEvaluator):
    """detectron2's ``COCOEvaluator`` for predictions with ``scores`` and ``mask_scores``.

    Box AP (``bbox``) is ranked by ``scores``, mask AP (``segm``) by ``mask_scores``, and beside it
    stands the mask AP ranked by ``scores`` (``segm_class_score``), so that the gain is visible;
    all in one pass over the data. ``mask_scoring`` holds the gains and the correlations of the
    scores with the true MaskIoU, see :meth:`MaskScoringResults.summary`.

    Predictions without ``mask_scores`` are evaluated as by ``COCOEvaluator``. A model that finds
    nothing in any image has AP 0 instead of NaN.

    Files in ``output_dir``, besides those of ``COCOEvaluator``:

    * ``coco_instances_results.json``: ``score`` is the class score (upload it for boxes); each
      entry also has ``mask_score`` and ``mask_iou``.
    * ``coco_segm_results.json``: ``score`` is the mask score (upload it for masks).
    * ``mask_scoring_pairs.npz``: the scores and the true MaskIoU of each detection.

    The first two are written as well when the annotations are withheld.
    """

    def __init__(self, dataset_name: str, *args, eval_oracle: bool = False, **kwargs):
        """
        Args:
            dataset_name: a registered data set, see ``COCOEvaluator``.
            *args: further arguments of ``COCOEvaluator``.
            eval_oracle: also report ``segm_oracle``, the mask AP with the predicted MaskIoU
                replaced by the true one (Table 7).
            **kwargs: further arguments of ``COCOEvaluator``.
        """
        super().__init__(dataset_name, *args, **kwargs)
        self._eval_oracle = eval_oracle
        complete_annotations(self._coco_api)

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Store the predictions of a batch, see ``COCOEvaluator``."""
        for item, output in zip(inputs, outputs):
            first_new = len(self._predictions)
            super().process([item], [output])
            for prediction in self._predictions[first_new:]:
                if "instances" in prediction:
                    _add_mask_scores(prediction, output["instances"])

    def _eval_predictions(self, predictions: list[dict], img_ids: Sequence | None = None) -> None:
        # The parent maps category ids in place: entries of its own make a second call harmless.
        predictions = [{**p, "instances": [dict(x) for x in p["instances"]]} for p in predictions]
        results = list(itertools.chain(*(p["instances"] for p in predictions)))
        has_mask_scores = any(p.get("has_mask_scores") for p in predictions)
        if results and not has_mask_scores:
            super()._eval_predictions(predictions, img_ids)
            return
        tasks = self._find_tasks(predictions, results)
        self._eval_by_parent(predictions, tasks - {"segm"}, img_ids)
        if not results and self._do_evaluation:
            self._eval_no_detections(tasks, img_ids)
        if has_mask_scores and "segm" in tasks:
            self._eval_masks(results, img_ids)

    def _find_tasks(self, predictions: list[dict], results: list[dict]) -> set[str]:
        if self._tasks:
            return set(self._tasks)
        tasks = set(self._tasks_from_predictions(results))
        # A model that found nothing shows its masks only by the field of its empty output.
        return tasks | {"segm"} if any(p.get("has_masks") for p in predictions) else tasks

    def _eval_by_parent(self, predictions: list[dict], tasks: set[str], img_ids) -> None:
        """Map the category ids, write the results file and evaluate ``tasks``."""
        own_tasks = self._tasks
        # An empty list would make the parent choose the tasks; "bbox" is the cheapest one.
        self._tasks = sorted(tasks) or ["bbox"]
        try:
            super()._eval_predictions(predictions, img_ids)
        finally:
            self._tasks = own_tasks
        if not tasks:
            self._results.pop("bbox", None)

    def _eval_no_detections(self, tasks: set[str], img_ids) -> None:
        for task in sorted(tasks & {"bbox", "segm"}):
            overlaps = coco_overlaps(self._coco_api, [], task, img_ids)
            self._results[task] = self._derive(average_precision(overlaps, np.zeros(0)), task)

    def _eval_masks(self, results: list[dict], img_ids: Sequence | None) -> None:
        """Write the results file of the masks and fill in everything that ranks masks."""
        if self._output_dir:
            self._save_json(SEGM_RESULTS_FILE, segmentation_results(results))
        if not self._do_evaluation:
            return
        if img_ids is not None:
            wanted = set(img_ids)
            results = [x for x in results if x["image_id"] in wanted]
        overlaps = coco_overlaps(self._coco_api, results, "segm", img_ids)
        protocol = Protocol(max_detections=self._max_dets_per_image)
        evaluated = evaluate_mask_scores(overlaps, results, protocol, self._eval_oracle)
        for name, ranking in evaluated.rankings.items():
            self._logger.info(_TITLES[name])
            self._results[name] = self._derive(ranking, "segm")
        self._report(evaluated)

    def _report(self, evaluated: MaskScoringResults) -> None:
        summary = evaluated.summary()
        self._results["mask_scoring"] = summary
        self._logger.info("What the mask score brings:\n" + create_small_table(summary))
        table = format_figure2_table(figure2_table(evaluated.pairs))
        self._logger.info("Mean scores of detections with a class score above 0.5:\n" + table)
        if self._output_dir:
            path = os.path.join(self._output_dir, PAIRS_FILE)
            with PathManager.open(path, "wb") as file:
                np.savez_compressed(file, **evaluated.pairs)

    def _derive(self, ranking: EvaluationResult, task: str) -> dict[str, float]:
        """Log and return the numbers of one ranking in the form of ``COCOEvaluator``."""
        class_names = self._metadata.get("thing_classes")
        return self._derive_coco_results(ranking, task, class_names=class_names)

    def _save_json(self, name: str, content: list[dict]) -> None:
        path = os.path.join(self._output_dir, name)
        self._logger.info(f"Saving results to {path}")
        with PathManager.open(path, "w") as file:
            json.dump(content, file)


def _add_mask_scores(prediction: dict, instances: Instances) -> None:
    """Add the scores of the masks to the result entries of one image, in place.

    The two flags say what kind of model it was, also where it found nothing.
    """
    prediction["has_masks"] = instances.has("pred_masks")
    prediction["has_mask_scores"] = instances.has("mask_scores")
    if not instances.has("mask_scores"):
        return
    fields = {"mask_scores": "mask_score", "mask_iou": "mask_iou"}
    # With MODEL.ROI_MASKIOU_HEAD.OVERWRITE_SCORES the class score has moved to its own field.
    fields["class_scores"] = "score"
    for field, key in fields.items():
        if instances.has(field):
            for entry, value in zip(prediction["instances"], instances.get(field).tolist()):
                entry[key] = value
