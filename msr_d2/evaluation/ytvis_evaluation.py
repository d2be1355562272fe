"""detectron2 evaluator of video instance segmentation."""

from __future__ import annotations

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
from tabulate import tabulate

from ..layers.run_lengths import text_rle
from .ytvis_eval import evaluate_ytvis
from .ytvis_tracks import check_results, read_rles
from .ytvis_truth import check_tracks, is_withheld, load_ytvis, tasks_of

RESULTS_FILE = "results.json"
ARCHIVE_FILE = "results.zip"


class YTVISEvaluator(DatasetEvaluator):
    """AP of mask tracks by the rules of YouTube-VIS, and files for its evaluation servers.

    Inputs are dicts with ``video_id``. The output for a video is a dict with

    * ``scores``: (N,) and ``labels``: (N,) contiguous class indices from 0;
    * ``masks``: N tracks, each a bool array or tensor (T, H, W) at the size of the video, or a
      list of T compressed RLEs or None, which are not encoded again.

    The names ``pred_scores``, ``pred_labels`` and ``pred_masks`` are understood, too, and instead
    of a list of outputs a single dict, as other models for video return them.

    ``results.json`` and ``results.zip`` (which holds it) are written to ``output_dir``, with the
    videos in the order of the data set, whatever the number of processes. Without annotations (or
    with an empty list of them), as for the public validation and test sets, that is all.

    Annotations without any mask are enough for ``bbox``, which then replaces ``segm``: the AP of
    the tight boxes of the predicted masks.
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

        Raises:
            ValueError: the annotations cannot be evaluated, with the file and the entry.
        """
        # Below detectron2's logger, which every project based on it has set up.
        self._logger = logging.getLogger(f"detectron2.{__name__}")
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_video = max_dets_per_video
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("json_file") is None:
            raise ValueError(
                f"data set {dataset_name!r} has no json_file in its metadata: register it with "
                "the path of its json file in YouTube-VIS format"
            )
        self._json_file = PathManager.get_local_path(metadata.json_file)
        self._ground_truth = load_ytvis(self._json_file)
        self._tasks = tasks_of(self._ground_truth, tasks, self._json_file)
        check_tracks(self._ground_truth, self._tasks, self._json_file)
        self._videos = {x["id"]: x for x in self._ground_truth["videos"]}
        ids = sorted(x["id"] for x in self._ground_truth["categories"])
        mapping = metadata.get("thing_dataset_id_to_contiguous_id")
        mapping = mapping or {category: i for i, category in enumerate(ids)}
        self._category_of = {index: category for category, index in mapping.items()}
        self._results: dict[Any, list[dict]] = {}

    def reset(self) -> None:
        """Forget all predictions."""
        self._results = {}

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict] | dict) -> None:
        """Store the predictions for some videos as RLE; those for a video seen before replace it.

        Raises:
            ValueError: an output does not fit its video, with what is wrong.
        """
        outputs = [outputs] if isinstance(outputs, dict) else outputs
        if len(inputs) != len(outputs):
            raise ValueError(f"{len(inputs)} videos have {len(outputs)} outputs: return one each")
        for item, output in zip(inputs, outputs):
            self._results[item["video_id"]] = self._to_results(item["video_id"], output)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Write the results files; evaluate if there are annotations.

        Returns:
            for each task the numbers of :func:`evaluate_ytvis_results`, in the main process.
        """
        of_video = self._results
        if self._distributed:
            comm.synchronize()
            # A sampler that pads its shards shows a video to two processes; it counts once.
            of_video = {k: v for part in comm.gather(of_video, dst=0) for k, v in part.items()}
            if not comm.is_main_process():
                return {}
        results = [x for video in self._videos for x in of_video.get(video, ())]
        if self._output_dir:
            self._write(results)
        if is_withheld(self._ground_truth):
            self._logger.info(f"{self._json_file} has no annotations: nothing is evaluated.")
            return {}
        evaluated = {}
        for task in self._tasks:
            evaluated[task] = evaluate_ytvis(
                self._ground_truth, results, task, self._max_dets_per_video
            )
            self._log(task, evaluated[task])
        return evaluated

    def _to_results(self, video_id: Any, output: dict) -> list[dict]:
        if video_id not in self._videos:
            raise ValueError(f"video_id {video_id!r} is not in the json file of the data set")
        video, results = self._videos[video_id], []
        for i, (score, label, track) in enumerate(zip(*_columns(video_id, output))):
            track = {"segmentations": encode_track(track)}
            rles = read_rles(track, video, f"predicted track {i}")
            result = {
                "video_id": video_id,
                "category_id": self._category_id(int(label)),
                "score": float(score),
                "segmentations": [text_rle(x) for x in rles],
            }
            results.append(result)
        check_results(results, self._videos, self._category_of.values())
        return results

    def _category_id(self, label: int) -> int:
        if label not in self._category_of:
            raise ValueError(
                f"a prediction has class {label}, but the data set only has "
                f"{len(self._category_of)} classes, numbered from 0"
            )
        return self._category_of[label]

    def _log(self, task: str, numbers: dict[str, float]) -> None:
        """A small table of all categories together, and one of AP by category."""
        summary = {k: v for k, v in numbers.items() if not k.startswith("AP-")}
        self._logger.info(f"Evaluation results for {task}: \n" + create_small_table(summary))
        if not np.isfinite(list(summary.values())).all():
            self._logger.info("A number is NaN where no object is of this size.")
        per_category = {k[3:]: v for k, v in numbers.items() if k.startswith("AP-")}
        if len(per_category) > 1:
            table = category_table(per_category)
            self._logger.info(f"Per-category {task} AP: \n" + table)

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


def category_table(values: dict[str, float], columns: int = 3) -> str:
    """AP by category as text, side by side in some columns, as detectron2 prints it."""
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    cells = [list(x) for x in values.items()] + [[None, None]] * (rows * columns - len(values))
    lines = [sum(cells[i : i + columns], []) for i in range(0, len(cells), columns)]
    headers = ["category", "AP"] * columns
    return tabulate(lines, headers, tablefmt="pipe", floatfmt=".3f", numalign="left")


def _columns(video_id: Any, output: dict) -> list[Sequence]:
    """Scores, labels and masks of the output for a video."""
    names = ("scores", "labels", "masks")
    missing = [x for x in names if x not in output and f"pred_{x}" not in output]
    if missing:
        raise ValueError(
            f"the output for video {video_id!r} has no {missing[0]!r}, only {sorted(output)}: a "
            f"model for video returns {list(names)}"
        )
    columns = [output[x] if x in output else output[f"pred_{x}"] for x in names]
    if len({len(x) for x in columns}) > 1:
        counts = ", ".join(f"{len(x)} {name}" for x, name in zip(columns, names))
        raise ValueError(f"the output for video {video_id!r} has {counts}: give as many of each")
    return columns


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
