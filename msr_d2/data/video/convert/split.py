"""Split annotations into two sets of videos."""

from __future__ import annotations

import os
import random

from ...errors import DatasetError
from .content import Content, check_ytvis, read_content


def split_by_video(
    source: Content | str | os.PathLike, share: float, seed: int = 0
) -> tuple[dict, dict]:
    """Split a YouTube-VIS json by video, at random.

    Equal seeds give equal splits, whatever the order of the videos in the file. Both parts keep
    all categories and the order of the file.

    Args:
        source: path of the json file, or what it holds; not modified.
        share: of the videos that go into the second part, in (0, 1); rounded, but each part gets
            at least one video.
        seed: of the draw.

    Returns:
        the first part (training) and the second (validation).

    Raises:
        DatasetError: for a share outside (0, 1), fewer than two videos, or as :func:`check_ytvis`.
    """
    if not 0.0 < share < 1.0:
        raise DatasetError(f"share must lie between 0 and 1, got {share!r}")
    content, where = read_content(source, "videos")
    content = check_ytvis(content, where)
    ids = sorted(video["id"] for video in content["videos"])
    if len(ids) < 2:
        raise DatasetError(f"{where}: {len(ids)} videos cannot be split; at least 2 are needed.")
    count = min(max(round(share * len(ids)), 1), len(ids) - 1)
    # sort by a draw each: `shuffle` may change between versions of Python, `random` may not
    draw = random.Random(seed)
    drawn = sorted((draw.random(), number) for number in ids)
    second = {number for _, number in drawn[:count]}
    return _part(content, set(ids) - second), _part(content, second)


def _part(content: dict, ids: set[int]) -> dict:
    videos = [video for video in content["videos"] if video["id"] in ids]
    annotations = [item for item in content["annotations"] if item["video_id"] in ids]
    return {**content, "videos": videos, "annotations": annotations}
