"""detectron2 evaluator of video instance segmentation."""

from __future__ import annotations

import itertools
import json
import logging
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from .ytvis_eval import evaluate_ytvis, load_ytvis, read_mask_track

RESULTS_FILE = "results.json"
ARCHIVE_FILE = "results.zip"


class YTVISEvaluator(DatasetEvaluator):
    """AP of mask tracks by the rules of YouTube-VIS, and files for its evaluation servers.

    Inputs are dicts with ``video_id``. The output for a video is a dict with

    * ``scores``: (N,) and ``labels``: (N,) contiguous class indices from 0;
    * ``masks``: N tracks, each a bool array or tensor (T, H, W) at the size of the video, or a
      list of T compressed RLEs or None.

    The names ``pred_scores``, ``pred_labels`` and ``pred_masks`` are understood, too, and instead
    of a list of outputs a single dict, as other models for video return them.

    ``results.json`` and ``results.zip`` (which holds it) are written to ``output_dir``. Without
    annotations, as for the public validation and test sets, that is all.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] = ("segm",),
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_video: int = 100,
    ):
        """
        Args:
            dataset_name: a registered data set whose metadata has ``json_file`` and
                ``thing_dataset_id_to_contiguous_id``.
            tasks: "segm", and "bbox" to evaluate the tight boxes of the masks as well.
            distributed: gather the predictions of all processes.
            output_dir: where to write the results files, if given.
            max_dets_per_video: limit on the tracks per video and category.
        """
        # Below detectron2's logger, which every project based on it has set up.
        self._logger = logging.getLogger(f"detectron2.{__name__}")
        self._tasks = tuple(tasks)
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_video = max_dets_per_video
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("json_file") is None:
            raise ValueError(
                f"data set {dataset_name!r} has no json_file in its metadata: register it with "
                "the path of its json file in YouTube-VIS format"
            )
        self._ground_truth = load_ytvis(PathManager.get_local_path(metadata.json_file))
        self._videos = {x["id"]: x for x in self._ground_truth["videos"]}
        ids = sorted(x["id"] for x in self._ground_truth["categories"])
        mapping = metadata.get("thing_dataset_id_to_contiguous_id")
        mapping = mapping or {category: i for i, category in enumerate(ids)}
        self._category_of = {index: category for category, index in mapping.items()}
        self._results: list[dict] = []

    def reset(self) -> None:
        """Forget all predictions."""
        self._results = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict] | dict) -> None:
        """Store the predictions for some videos as RLE."""
        outputs = [outputs] if isinstance(outputs, dict) else outputs
        for item, output in zip(inputs, outputs):
            self._results += self._to_results(item["video_id"], output)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Write the results files; evaluate if there are annotations.

        Returns:
            for each task the numbers of :func:`evaluate_ytvis_results`, in the main process.
        """
        results = self._results
        if self._distributed:
            comm.synchronize()
            results = list(itertools.chain(*comm.gather(self._results, dst=0)))
            if not comm.is_main_process():
                return {}
        if self._output_dir:
            self._write(results)
        if self._ground_truth.get("annotations") is None:
            self._logger.info("There are no annotations: nothing is evaluated.")
            return {}
        evaluated = {}
        for task in self._tasks:
            evaluated[task] = evaluate_ytvis(
                self._ground_truth, results, task, self._max_dets_per_video
            )
            summary = {k: v for k, v in evaluated[task].items() if "-" not in k}
            self._logger.info(f"Track {task} results:\n" + create_small_table(summary))
        return evaluated

    def _to_results(self, video_id: Any, output: dict) -> list[dict]:
        if video_id not in self._videos:
            raise ValueError(f"video_id {video_id!r} is not in the json file of the data set")
        scores, labels, masks = (
            output[x] if x in output else output[f"pred_{x}"] for x in ("scores", "labels", "masks")
        )
        results = []
        for score, label, track in zip(scores, labels, masks):
            result = {
                "video_id": video_id,
                "category_id": self._category_id(int(label)),
                "score": float(score),
                "segmentations": [_serializable(x) for x in encode_track(track)],
            }
            read_mask_track(result, self._videos[video_id])
            results.append(result)
        return results

    def _category_id(self, label: int) -> int:
        if label not in self._category_of:
            raise ValueError(
                f"a prediction has class {label}, but the data set only has "
                f"{len(self._category_of)} classes, numbered from 0"
            )
        return self._category_of[label]

    def _write(self, results: list[dict]) -> None:
        PathManager.mkdirs(self._output_dir)
        content = json.dumps(results)
        path = os.path.join(self._output_dir, RESULTS_FILE)
        with PathManager.open(path, "w") as file:
            file.write(content)
        archive = os.path.join(self._output_dir, ARCHIVE_FILE)
        with PathManager.open(archive, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
                zipped.writestr(RESULTS_FILE, content)
        self._logger.info(f"Saved {len(results)} tracks to {path} and, for a server, {archive}")


def encode_track(track: torch.Tensor | np.ndarray | Sequence[dict | None]) -> list[dict | None]:
    """Compressed RLEs of a mask track, None for frames without a pixel.

    Args:
        track: bool (T, H, W), or a list that is encoded already.
    """
    if not isinstance(track, (torch.Tensor, np.ndarray)):
        return list(track)
    masks = track.cpu().numpy() if isinstance(track, torch.Tensor) else track
    visible = masks.any(axis=(1, 2))
    rles = mask_util.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    return [rle if seen else None for rle, seen in zip(rles, visible)]


def _serializable(rle: dict | None) -> dict | None:
    """The same RLE with a string instead of bytes, for json."""
    if rle is None or isinstance(rle["counts"], str):
        return rle
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("utf-8")}
