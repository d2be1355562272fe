"""MOT challenge text files -> YouTube-VIS json with boxes, which is all that training needs.

A row is ``frame, id, x, y, w, h, conf, class, visibility``; frames and coordinates start at 1.
Files of 2015 have ten columns, without class and visibility.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DatasetError
from .content import box_area, check_ytvis
from .mot_sequence import MotSequence, find_sequences

logger = logging.getLogger(__name__)

MOT_CLASSES = {
    1: "pedestrian",
    2: "person on vehicle",
    3: "car",
    4: "bicycle",
    5: "motorbike",
    6: "non motorized vehicle",
    7: "static person",
    8: "distractor",
    9: "occluder",
    10: "occluder on the ground",
    11: "occluder full",
    12: "reflection",
    13: "crowd",
}
_PEDESTRIAN = 1  # the class of files that have no class column


@dataclass(frozen=True)
class _Row:
    """A box: frame from 0, [x, y, w, h] in pixels from 0; visibility is None where unknown."""

    frame: int
    track: int
    box: list[float]
    ignored: bool
    category: int
    visibility: float | None


def mot_to_ytvis(
    source: str | os.PathLike | Sequence[str | os.PathLike],
    classes: Mapping[int, str] | None = None,
    min_visibility: float = 0.0,
    size: tuple[int, int] | None = None,
    length: int | None = None,
) -> dict:
    """Convert MOT ground truth to YouTube-VIS annotations without masks.

    Rows with ``conf`` 0 are ignored, as the format says. Boxes are cut at the borders of the frame;
    an object has null where its box lies outside, or its visibility is 0 or below
    ``min_visibility``. What was left out is logged. ``file_names`` start with the name of the
    sequence: the image folder is the one that holds the sequences.

    Args:
        source: a sequence folder (with ``seqinfo.ini``), a folder of such, a ``gt.txt``, or several
            of these.
        classes: class ids to keep and their names; pedestrians only if None (``MOT_CLASSES`` has
            all). Rows of other classes are left out.
        min_visibility: in [0, 1].
        size, length: (height, width) in pixels and number of frames, for a ``gt.txt`` without
            ``seqinfo.ini``; the length is the last frame with a box if None.

    Raises:
        DatasetError: names file, line, value and cure.
    """
    if not 0.0 <= min_visibility <= 1.0:
        raise DatasetError(f"min_visibility must lie in [0, 1], got {min_visibility!r}")
    classes = dict(classes or {_PEDESTRIAN: MOT_CLASSES[_PEDESTRIAN]})
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    sequences = [s for item in sources for s in find_sequences(Path(item), size, length)]
    _check_names(sequences)
    videos, annotations, left_out = [], [], Counter()
    for sequence in sequences:
        rows = _read_rows(sequence.ground_truth)
        sequence = sequence.with_length(max((row.frame + 1 for row in rows), default=0))
        videos.append(_video(sequence, len(videos) + 1))
        for track, members in _tracks(rows, classes, min_visibility, left_out).items():
            item = _object(track, members, sequence, left_out)
            if item is not None:
                annotations.append({"id": len(annotations) + 1, "video_id": len(videos), **item})
    if left_out:
        logger.warning("Boxes that were left out: %s.", dict(left_out))
    categories = [{"id": i, "name": name} for i, name in sorted(classes.items())]
    content = {"info": {"description": "MOT ground truth"}, "videos": videos}
    content.update(categories=categories, annotations=annotations)
    return check_ytvis(content, ", ".join(sequence.name for sequence in sequences))


def _check_names(sequences: list[MotSequence]) -> None:
    for name, count in Counter(sequence.name for sequence in sequences).items():
        if count > 1:
            raise DatasetError(f"two sequences have the name '{name}'; convert them one by one.")


def _read_rows(path: Path) -> list[_Row]:
    rows: list[_Row] = []
    seen: dict[tuple[int, int], int] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"'{path}' cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row = _parse(line, f"'{path}', line {number}")
        first = seen.setdefault((row.frame, row.track), number)
        if first != number:
            raise DatasetError(
                f"'{path}', line {number}: object {row.track} has a box in frame {row.frame + 1} "
                f"already (line {first}). Take one of them out."
            )
        rows.append(row)
    return rows


def _parse(line: str, where: str) -> _Row:
    try:
        values = [float(value) for value in line.replace(",", " ").split()]
    except ValueError as error:
        raise DatasetError(f"{where}: {error}. A row is 9 numbers with commas.") from error
    if not 6 <= len(values) <= 10 or not all(map(math.isfinite, values)):
        raise DatasetError(
            f"{where}: '{line.strip()}' is no row of 6 to 10 finite numbers (frame, id, x, y, w, "
            "h, conf, class, visibility)."
        )
    frame, track, x, y, width, height = values[:6]
    if frame != int(frame) or frame < 1 or track != int(track):
        raise DatasetError(
            f"{where}: frame {frame:g} and id {track:g} must be integers, and frames start at 1."
        )
    # the ten columns of 2015 end with a position in the world instead of class and visibility
    new_form = len(values) in (8, 9)
    return _Row(
        int(frame) - 1,
        int(track),
        [x - 1, y - 1, width, height],
        ignored=len(values) > 6 and values[6] == 0,
        category=int(values[7]) if new_form and values[7] > 0 else _PEDESTRIAN,
        visibility=values[8] if len(values) == 9 and values[8] >= 0 else None,
    )


def _tracks(
    rows: list[_Row], classes: Mapping[int, str], min_visibility: float, left_out: Counter
) -> dict[int, list[_Row]]:
    """The rows that count, by object; objects in the order of their ids."""
    tracks: dict[int, list[_Row]] = {}
    for row in rows:
        if row.ignored:
            left_out["ignored (conf 0)"] += 1
        elif row.category not in classes:
            left_out[f"class {row.category} ({MOT_CLASSES.get(row.category, 'unknown')})"] += 1
        elif row.visibility == 0 or (row.visibility or 1.0) < min_visibility:
            left_out["not visible"] += 1
        else:
            tracks.setdefault(row.track, []).append(row)
    return dict(sorted(tracks.items()))


def _object(track: int, rows: list[_Row], sequence: MotSequence, left_out: Counter) -> dict | None:
    """The annotation of one object, without ids; None if no box lies in the frame."""
    categories = sorted({row.category for row in rows})
    if len(categories) > 1:
        raise DatasetError(
            f"'{sequence.ground_truth}': object {track} has the classes {categories}. An object "
            "has one class: correct the rows, or give them different ids."
        )
    boxes: list[list[float] | None] = [None] * sequence.length
    for row in rows:
        boxes[row.frame] = _clip(row.box, sequence)
        if boxes[row.frame] is None:
            left_out["outside the frame or without area"] += 1
    if all(box is None for box in boxes):
        return None
    return {
        "track_id": track,
        "category_id": categories[0],
        "iscrowd": 0,
        "height": sequence.height,
        "width": sequence.width,
        "length": sequence.length,
        "bboxes": boxes,
        "areas": [None if box is None else box_area(box) for box in boxes],
    }


def _clip(box: list[float], sequence: MotSequence) -> list[float] | None:
    """The part of [x, y, w, h] inside the frame, or None."""
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[0] + box[2], sequence.width), min(box[1] + box[3], sequence.height)
    return [x1, y1, x2 - x1, y2 - y1] if x2 > x1 and y2 > y1 else None


def _video(sequence: MotSequence, number: int) -> dict:
    return {
        "id": number,
        "name": sequence.name,
        "height": sequence.height,
        "width": sequence.width,
        "length": sequence.length,
        "file_names": sequence.file_names(),
    }
