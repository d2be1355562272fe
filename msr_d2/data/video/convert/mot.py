"""MOT challenge text files -> YouTube-VIS json with boxes, which is all that training needs.

How they write a box is in :mod:`.mot_rows`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import DatasetError
from ...ytvis_checks import IGNORED_FRAMES
from .content import box_area, check_ytvis
from .mot_rows import PEDESTRIAN, MotRow, read_rows
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


def mot_to_ytvis(
    source: str | os.PathLike | Sequence[str | os.PathLike],
    classes: Mapping[int, str] | None = None,
    min_visibility: float = 0.0,
    size: tuple[int, int] | None = None,
    length: int | None = None,
) -> dict:
    """Convert MOT ground truth to YouTube-VIS annotations without masks.

    Boxes are cut at the borders of the frame. An object is absent (null) in frames where it has no
    row, its box lies outside, or its visibility is 0, as nothing of it is to be seen there. Rows
    that are not used though something may be seen (``conf`` 0, which the format says to ignore,
    visibility below ``min_visibility``, or a class that is not kept) become ``ignored_frames`` of
    the object: it is left out of training clips with such a frame, instead of being trained as
    absent. An object without any other row is left out. What was left out is logged.

    ``file_names`` start with the name of the sequence: the image folder is the one that holds the
    sequences. MOT17 has each sequence three times, once for each detector, with the same images
    and ground truth; sequences with equal ground truth are named in a warning.

    Args:
        source: a sequence folder (with ``seqinfo.ini``), a folder of such, a ``gt.txt``, or several
            of these.
        classes: class ids to keep and their names; pedestrians only if None (``MOT_CLASSES`` has
            all). Rows of other classes are left out.
        min_visibility: in [0, 1]; the boxes of MOT are those of whole objects, also of hidden ones.
        size, length: (height, width) in pixels and number of frames, for a ``gt.txt`` without
            ``seqinfo.ini``; the length is the last frame with a box if None.

    Raises:
        DatasetError: names file, line, value and cure.
    """
    if not 0.0 <= min_visibility <= 1.0:
        raise DatasetError(f"min_visibility must lie in [0, 1], got {min_visibility!r}")
    classes = dict(classes or {PEDESTRIAN: MOT_CLASSES[PEDESTRIAN]})
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    sequences = [s for item in sources for s in find_sequences(Path(item), size, length)]
    _check_names(sequences)
    _warn_of_copies(sequences)
    videos, annotations, left_out = [], [], Counter()
    for sequence in sequences:
        rows = read_rows(sequence.ground_truth)
        sequence = sequence.with_length(max((row.frame + 1 for row in rows), default=0))
        videos.append(_video(sequence, len(videos) + 1))
        tracks, ignored = _tracks(rows, classes, min_visibility, left_out)
        for track, members in tracks.items():
            item = _object(track, members, ignored.get(track, ()), sequence, left_out)
            if item is not None:
                annotations.append({"id": len(annotations) + 1, "video_id": len(videos), **item})
    if left_out:
        logger.warning(
            "Boxes that were left out: %s. Where nothing is to be seen the object is absent; other "
            "frames of an object that stays are listed in its '%s'.",
            *(dict(left_out), IGNORED_FRAMES),
        )
    categories = [{"id": i, "name": name} for i, name in sorted(classes.items())]
    content = {"info": {"description": "MOT ground truth"}, "videos": videos}
    content.update(categories=categories, annotations=annotations)
    return check_ytvis(content, ", ".join(sequence.name for sequence in sequences))


def _check_names(sequences: list[MotSequence]) -> None:
    for name, count in Counter(sequence.name for sequence in sequences).items():
        if count > 1:
            raise DatasetError(f"two sequences have the name '{name}'; convert them one by one.")


def _warn_of_copies(sequences: list[MotSequence]) -> None:
    first_of: dict[bytes, str] = {}
    copies = []
    for sequence in sequences:
        path = sequence.ground_truth
        content = path.read_bytes() if path.is_file() else b""  # a missing one is named later
        first = first_of.setdefault(content, sequence.name) if content.strip() else sequence.name
        if first != sequence.name:
            copies.append(f"'{sequence.name}' is '{first}'")
    if copies:
        logger.warning(
            "%d of %d sequences have the ground truth of another one: %s%s. MOT17 has each "
            "sequence once for each detector; give those of one alone, as MOT17/train/*-FRCNN.",
            *(len(copies), len(sequences), ", ".join(copies[:3]), ", ..." if copies[3:] else ""),
        )


def _tracks(
    rows: list[MotRow], classes: Mapping[int, str], min_visibility: float, left_out: Counter
) -> tuple[dict[int, list[MotRow]], dict[int, list[MotRow]]]:
    """By object, in the order of their ids: the rows that count, and those that may be seen."""
    tracks: dict[int, list[MotRow]] = {}
    ignored: dict[int, list[MotRow]] = {}
    for row in rows:
        reason = None
        if row.visibility == 0:
            left_out["not visible (visibility 0)"] += 1
            continue
        if row.ignored:
            reason = "ignored (conf 0)"
        elif row.category not in classes:
            reason = f"class {row.category} ({MOT_CLASSES.get(row.category, 'unknown')})"
        elif row.visibility is not None and row.visibility < min_visibility:
            reason = f"visibility below {min_visibility:g}"
        if reason is not None:
            left_out[reason] += 1
        (tracks if reason is None else ignored).setdefault(row.track, []).append(row)
    return dict(sorted(tracks.items())), ignored


def _object(
    track: int,
    rows: list[MotRow],
    ignored: Sequence[MotRow],
    sequence: MotSequence,
    left_out: Counter,
) -> dict | None:
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
    unknown = sorted(row.frame for row in ignored if _clip(row.box, sequence) is not None)
    return {
        "track_id": track,
        "category_id": categories[0],
        "iscrowd": 0,
        "height": sequence.height,
        "width": sequence.width,
        "length": sequence.length,
        "bboxes": boxes,
        "areas": [None if box is None else box_area(box) for box in boxes],
        **({IGNORED_FRAMES: unknown} if unknown else {}),
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
