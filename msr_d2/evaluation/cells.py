"""Sorting detections and ground truths into cells: one image (or video) and one category."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np


def check_known(results: Sequence[dict], key: str, known: Collection) -> None:
    """Raise ValueError for results of images (or videos) that are not evaluated.

    Args:
        results: entries with ``key``.
        key: "image_id" or "video_id".
        known: the ids that are evaluated.
    """
    unknown = {x[key] for x in results} - set(known)
    if unknown:
        raise ValueError(
            f"results of {len(unknown)} unknown {key}s, such as {next(iter(unknown))!r}: they "
            "belong to another ground truth, or are outside the selection (leave them out)"
        )


def warn_of_unknown_categories(results: Sequence[dict], known: Collection) -> None:
    """Log the category ids of results that the ground truth does not have."""
    unknown = {x["category_id"] for x in results} - set(known)
    if unknown:
        logging.getLogger(__name__).warning(
            f"Results of category ids {sorted(unknown)[:10]} are ignored: the ground truth has "
            f"only {list(known)}. Category ids in results are those of the json file."
        )


def cell_indices(
    entries: Sequence[dict], key: str, image_index: Mapping, category_index: Mapping
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the image (or video) and of the category (-1: unknown) of each entry, two (N,)."""
    image = [image_index[x[key]] for x in entries]
    category = [category_index.get(x["category_id"], -1) for x in entries]
    return np.array(image, dtype=np.int64), np.array(category, dtype=np.int64)


def common_cells(
    det_cell: tuple[np.ndarray, np.ndarray], gt_cell: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the detections and of the ground truths of each cell that has both."""
    gt_of = _group(*gt_cell)
    for key, det in _group(*det_cell).items():
        if key in gt_of:
            yield np.array(det), np.array(gt_of[key])


def _group(image: np.ndarray, category: np.ndarray) -> dict[tuple[int, int], list[int]]:
    groups = defaultdict(list)
    for i, key in enumerate(zip(image.tolist(), category.tolist())):
        groups[key].append(i)
    return groups
