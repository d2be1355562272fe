"""What the evaluation of tracks costs: our overlaps against one pair and one frame at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

from ..evaluation.ytvis_eval import ytvis_overlaps
from .timing import compare
from .track_evaluation_reference import overlaps_by_pair

HEADER = [
    "track overlaps",
    "pairs",
    "by pair and frame ms",
    "ours, all IoUs ms",
    "ratio",
    "ours, IoU >= 0.5 ms",
    "ratio",
]


@dataclass(frozen=True)
class Mix:
    """What the videos of a made validation set hold; ranges include both ends.

    Attributes:
        name: for the table.
        truths: objects per video.
        predictions: predicted tracks per video.
        same_truth: share of the objects that have the main category of their video.
        same_prediction: share of the predictions that have the category of what they cover.
    """

    name: str
    truths: tuple[int, int]
    predictions: tuple[int, int]
    same_truth: float
    same_prediction: float


MIXES = (
    Mix("several categories in a video", (2, 5), (10, 20), 0.7, 0.7),
    Mix("one category in a video", (2, 5), (10, 20), 1.0, 0.95),
    Mix("one category, many pairs", (5, 5), (20, 20), 1.0, 1.0),
)
NUM_CATEGORIES = 40
_CORNERS = np.linspace(0, 2 * np.pi, 64, endpoint=False)


@dataclass
class _Blob:
    """A wobbly outline that moves and grows; units are pixels, radii are (64,)."""

    centre: np.ndarray
    velocity: np.ndarray
    radii: np.ndarray
    growth: float
    visible: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, length: int, size: tuple[int, int]) -> _Blob:
        height, width = size
        area = height * width * np.exp(rng.uniform(np.log(0.01), np.log(0.2)))
        waves = np.arange(2, 8)[:, None]
        phase = rng.uniform(0, 2 * np.pi, waves.shape)
        strength = rng.uniform(0, 0.3, waves.shape) / waves
        wobble = (strength * np.cos(waves * _CORNERS + phase)).sum(axis=0)
        return cls(
            rng.uniform(0.2, 0.8, 2) * (width, height),
            rng.normal(0, 0.006, 2) * (width, height),
            np.sqrt(area / np.pi) * (1 + wobble),
            rng.uniform(0.99, 1.01),
            rng.random(length) < 0.95,
        )

    def predicted(self, rng: np.random.Generator, error: float) -> _Blob:
        """A prediction of this object: shifted, scaled and misshapen by about ``error``."""
        side = self.radii.mean() * error
        return _Blob(
            self.centre + rng.normal(0, side, 2),
            self.velocity + rng.normal(0, side / len(self.visible), 2),
            self.radii * np.exp(rng.normal(0, error)) + rng.normal(0, side / 4, len(_CORNERS)),
            self.growth,
            self.visible ^ (rng.random(len(self.visible)) < 0.05),
        )

    def segmentations(self, rng: np.random.Generator, size: tuple[int, int]) -> list[dict | None]:
        """Compressed RLEs as in a json file; None in frames without the object."""
        tracks: list[dict | None] = []
        directions = np.stack([np.cos(_CORNERS), np.sin(_CORNERS)], axis=1)
        for t, visible in enumerate(self.visible):
            radii = self.radii * self.growth**t * rng.normal(1, 0.02, len(_CORNERS))
            corners = self.centre + self.velocity * t + radii[:, None] * directions
            corners = corners.clip(0, (size[1], size[0]))
            rle = mask_util.frPyObjects([corners.reshape(-1).tolist()], *size)[0]
            counts = rle["counts"].decode()
            tracks.append({"size": list(size), "counts": counts} if visible else None)
        return tracks


def make_videos(
    mix: Mix, videos: int, length: int, size: tuple[int, int], seed: int = 0
) -> tuple[dict[str, Any], list[dict]]:
    """A validation set and results in YouTube-VIS format; ``size`` is (height, width)."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for video in range(1, videos + 1):
        main = int(rng.integers(1, NUM_CATEGORIES + 1))
        blobs, categories = [], []
        for _ in range(rng.integers(mix.truths[0], mix.truths[1] + 1)):
            blobs.append(_Blob.random(rng, length, size))
            categories.append(_category(rng, main, mix.same_truth))
            annotations.append(_entry(video, categories[-1], blobs[-1].segmentations(rng, size)))
            annotations[-1].update(id=len(annotations), iscrowd=0)
        for i in range(rng.integers(mix.predictions[0], mix.predictions[1] + 1)):
            blob, category = _guess(rng, i, blobs, categories, length, size)
            category = _category(rng, category, mix.same_prediction)
            results.append(_entry(video, category, blob.segmentations(rng, size)))
            results[-1]["score"] = float(rng.random())
    ground_truth = {
        "videos": [
            {"id": i + 1, "height": size[0], "width": size[1], "length": length}
            for i in range(videos)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, NUM_CATEGORIES + 1)],
        "annotations": annotations,
    }
    return ground_truth, results


def _guess(rng, index, blobs, categories, length, size) -> tuple[_Blob, int]:
    """Each object is found once; then come second finds, bad masks and other things alike."""
    kind = rng.integers(3)
    if index < len(blobs):
        return blobs[index].predicted(rng, 0.08), categories[index]
    chosen = rng.integers(len(blobs))
    if kind == 2:
        return _Blob.random(rng, length, size), categories[chosen]
    return blobs[chosen].predicted(rng, (0.15, 0.6)[kind]), categories[chosen]


def _category(rng: np.random.Generator, usual: int, share: float) -> int:
    return usual if rng.random() < share else int(rng.integers(1, NUM_CATEGORIES + 1))


def _entry(video: int, category: int, segmentations: list[dict | None]) -> dict:
    return {"video_id": video, "category_id": category, "segmentations": segmentations}


def ways(ground_truth: dict[str, Any], results: list[dict]) -> dict[str, Callable[[], object]]:
    """The three functions that are timed, by name."""
    return {
        "pairs": lambda: overlaps_by_pair(ground_truth, results),
        "all": lambda: ytvis_overlaps(ground_truth, results, "segm"),
        "needed": lambda: ytvis_overlaps(ground_truth, results, "segm", min_iou=0.5),
    }


def rows(
    videos: int = 30,
    length: int = 30,
    sizes: tuple[tuple[int, int], ...] = ((360, 640), (720, 1280)),
    repeats: int = 3,
    progress: Callable[[], object] = lambda: None,
) -> list[list[str]]:
    """Lines of a table under ``HEADER``: medians of one run, for each mix and size (H, W).

    Reading json is not part of it; areas and IoUs of all tracks are. The second form of ours may
    leave out what cannot reach an IoU of 0.5, as the evaluation does.
    """
    table = []
    for mix in MIXES:
        for size in sizes:
            ground_truth, results = make_videos(mix, videos, length, size)
            pairs = len(overlaps_by_pair(ground_truth, results)[0])
            functions = ways(ground_truth, results)
            seconds = compare(functions, repeats, torch.device("cpu"), progress)
            line = [f"{mix.name}, {videos} x {length} frames of {size[0]}x{size[1]}", str(pairs)]
            line.append(f"{seconds['pairs'] * 1e3:.1f}")
            for name in ("all", "needed"):
                ratio = seconds["pairs"] / seconds[name]
                line += [f"{seconds[name] * 1e3:.1f}", f"{ratio:.1f}"]
            table.append(line)
    return table
