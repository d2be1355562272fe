"""Checks on videos that run once, before the training, instead of failing in a worker."""

from __future__ import annotations

import logging
import os

from detectron2.utils.file_io import PathManager

from ..annotations import NO_MASK, OUTSIDE
from ..checks import usable_annotations
from ..errors import DatasetError
from ..report import SkipReport

logger = logging.getLogger(__name__)

_EXAMPLES = 5  # frames or videos named in a message


def check_video_dicts(dicts: list[dict], name: str, with_masks: bool) -> list[dict]:
    """Leave out frames and annotations that cannot be trained on, and say once which and why.

    Frames whose file is missing are taken out of their video. Annotations of a frame are left out
    where the box (and with masks the segmentation) cannot be used, see :func:`check_frame`; crowd
    regions pass. Without masks the segmentations are dropped unread.

    Args:
        dicts: videos; not modified.
        name: of the data set, for messages.
        with_masks: whether masks are trained on.

    Returns:
        The same videos without those that have lost every frame.

    Raises:
        DatasetError: if all frames are missing, or no annotation has a mask where masks are needed.
    """
    dicts = _without_missing_frames(dicts, name)
    frames = [frame for record in dicts for frame in record["annotations"]]
    total = sum(not x.get("ignored") for frame in frames for x in frame)
    report = SkipReport(name)
    checked = [_check_video(record, with_masks, report) for record in dicts]
    if total and report.counts.get(NO_MASK) == total:
        raise DatasetError(
            f"dataset '{name}': none of its {total} boxes has a segmentation, but masks are to be "
            "trained on. Add them, or train with MODEL.MASK_FREE.SUPERVISION box."
        )
    report.log(
        cure="A box outside the image counts as an absent object. With any other reason the object "
        "may be visible in that frame, so it is left out of all clips that contain the frame. "
        "Correct the annotation file if they matter; null says that an object is absent."
    )
    return checked


def check_frame(
    annotations: list[dict], height: int, width: int, with_masks: bool
) -> tuple[list[dict], list[tuple[dict, str]]]:
    """Mark the annotations of a frame that cannot be used: unknown is not absent.

    Args:
        annotations: of one frame, in detectron2's format; not modified.
        height, width: of the frame in pixels.
        with_masks: whether masks are needed.

    Returns:
        The usable ones (crowd regions among them, masks normalized) and those with ``ignored``
        True, which have no box any more; one outside the frame is missing, as the object is absent.
        Then (annotation, reason) for all that cannot be used.
    """
    ignored = [x for x in annotations if x.get("ignored")]
    usable, problems = usable_annotations(
        [x for x in annotations if not x.get("ignored")], height, width, with_masks
    )
    unknown = [_ignored(x, reason) for x, reason in problems if reason != OUTSIDE]
    marked = [(x, x.get("reason", "marked as ignored")) for x in ignored]
    return usable + ignored + unknown, marked + problems


def _ignored(annotation: dict, reason: str) -> dict:
    kept = {key: annotation[key] for key in ("id", "category_id") if key in annotation}
    return {**kept, "iscrowd": 0, "ignored": True, "reason": reason}


def _check_video(record: dict, with_masks: bool, report: SkipReport) -> dict:
    size, annotations = (record["height"], record["width"]), []
    for t, frame in enumerate(record["annotations"]):
        if not with_masks:
            frame = [{k: v for k, v in x.items() if k != "segmentation"} for x in frame]
        kept, problems = check_frame(frame, *size, with_masks)
        annotations.append(kept)
        for annotation, problem in problems:
            place = f"video {record['video_id']}, frame {t}: {record['file_names'][t]}"
            report.add(problem, annotation, {"file_name": place})
    return {**record, "annotations": annotations}


def _without_missing_frames(dicts: list[dict], name: str) -> list[dict]:
    files = _Files()
    kept, missing, total = [], [], 0
    for record in dicts:
        total += len(record["file_names"])
        there = [t for t, file in enumerate(record["file_names"]) if files.has(file)]
        if len(there) == len(record["file_names"]):
            kept.append(record)
            continue
        missing += [
            f"video {record['video_id']}, frame {t}: {record['file_names'][t]}"
            for t in sorted(set(range(len(record["file_names"]))) - set(there))
        ]
        if there:
            kept.append(_select_frames(record, there))
    if dicts and not kept:
        raise DatasetError(
            f"dataset '{name}': none of its {total} frames exists (first: {missing[0]}). Point the "
            "image folder at the one that 'file_names' are relative to."
        )
    if missing:
        shown = "\n  ".join(missing[:_EXAMPLES] + (["..."] if len(missing) > _EXAMPLES else []))
        logger.warning(
            "%d of %d frames of dataset '%s' do not exist and are left out; restore the files or "
            "take the videos out of the annotation file if they matter.\n  %s",
            *(len(missing), total, name, shown),
        )
    return kept


def _select_frames(record: dict, indices: list[int]) -> dict:
    lists = {key: [record[key][t] for t in indices] for key in ("file_names", "annotations")}
    return {**record, **lists, "length": len(indices)}


def require_frames(dicts: list[dict], name: str) -> None:
    """Stop before an evaluation that would fail half way.

    Raises:
        DatasetError: names the first frame whose file is missing.
    """
    files = _Files()
    for record in dicts:
        for t, file in enumerate(record.get("file_names", ())):
            if not files.has(file):
                raise DatasetError(
                    f"dataset '{name}': frame {t} of video {record['video_id']}, '{file}', does "
                    "not exist. Restore it or point the image folder at the right place; results "
                    "on fewer frames would not be comparable."
                )


class _Files:
    """Whether files exist; lists each folder once, which is faster than asking for every file."""

    def __init__(self):
        self._folders: dict[str, frozenset[str]] = {}

    def has(self, file_name: str) -> bool:
        folder, base = os.path.split(file_name)
        if folder not in self._folders:
            there = PathManager.isdir(folder or ".")
            self._folders[folder] = frozenset(PathManager.ls(folder or ".") if there else ())
        return base in self._folders[folder]


def without_empty_videos(dicts: list[dict], name: str) -> list[dict]:
    """The videos with an object that is no crowd region and has a box; says which have none."""
    kept, empty = [], []
    for record in dicts:
        objects = (x for frame in record["annotations"] for x in frame)
        has_object = any(not x.get("iscrowd", 0) and not x.get("ignored") for x in objects)
        (kept if has_object else empty).append(record)
    if empty:
        shown = ", ".join(f"{x['video_id']} ({x['file_names'][0]})" for x in empty[:_EXAMPLES])
        logger.warning(
            "%d of %d videos of dataset '%s' have no objects and are left out: %s%s. Set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False to keep them.",
            *(len(empty), len(dicts), name, shown, ", ..." if len(empty) > _EXAMPLES else ""),
        )
    return kept
