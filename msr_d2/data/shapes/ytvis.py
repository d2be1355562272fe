"""Write moving clips of shapes as frames and YouTube-VIS json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from .clips import Clip, sample_clip
from .coco import RLE_STRING, encode_rle
from .dice import Dice
from .marker import SPLITS, begin, check_integers, finish, is_complete, write_bytes, write_json
from .outlines import CLIP_CATEGORIES
from .render import Rendered, render
from .style import ClipStyle

NUM_CLIPS = (240, 60)  # of the two splits, where nothing else is asked for

_VERSION = 1  # to be raised when the same settings give other bytes than before
_LEAST_SIDE, _MOST_SIDE = 32, 4096
_JPEG_QUALITY = 95
_STREAM = 2  # keeps the draws of clips apart from those of still images


def write_ytvis(
    folder: str | Path,
    num_train: int = NUM_CLIPS[0],
    num_val: int = NUM_CLIPS[1],
    seed: int = 0,
    length: int | tuple[int, int] = 10,
    size: tuple[int, int] = (96, 128),
    style: ClipStyle | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> bool:
    """Write clips of moving shapes in YouTube-VIS format.

    The folder gets the frames ``{train,val}/JPEGImages/<video>/<frame>.jpg`` and, in
    ``annotations/``, ``instances_train.json`` (boxes, no masks), ``instances_train_masks.json``
    (the same with masks, to compare with full supervision) and ``instances_val.json`` (boxes and
    masks). Equal arguments give equal bytes, and a clip does not depend on how many there are.

    Args:
        folder: made if needed.
        num_train, num_val: clips of the two splits.
        seed: of everything random.
        length: frames a clip, or the (fewest, most) between which it is drawn.
        size: (height, width) of the frames in pixels.
        style: how clips are drawn; the default style if None.
        overwrite: replace a set of other settings.
        progress: show a progress bar.

    Returns:
        True if the set was written, False if it was there already, complete and with the same
        settings.

    Raises:
        ValueError: an argument is out of range, ``folder`` holds a set of other settings and
            ``overwrite`` is off, or it holds files that are not a shapes set.
    """
    style, folder = style or ClipStyle(), Path(folder)
    lengths = (length, length) if isinstance(length, int) else tuple(length)
    _check_arguments(num_train, num_val, seed, lengths, size)
    settings = {"version": _VERSION, "format": "ytvis", "train": num_train, "val": num_val}
    settings.update(size=list(size), length=list(lengths), seed=seed)
    settings = json.loads(json.dumps({**settings, "style": asdict(style)}))
    if is_complete(folder, settings, overwrite):
        return False
    begin(folder, settings)
    with tqdm(total=num_train + num_val, desc="clips", unit="clip", disable=not progress) as bar:
        for split, count in zip(SPLITS, (num_train, num_val)):
            clips = []
            for index in range(count):
                dice = Dice((seed, SPLITS.index(split), index, _STREAM))
                clip = sample_clip(dice.integer(*lengths), *size, dice, style)
                clips.append(_write_clip(folder, split, index, clip, style.min_area))
                bar.update()
            _write_annotations(folder, split, clips, style)
    finish(folder, settings)
    return True


def annotate_clip(clip: Clip, frames: list[Rendered], min_area: int = 1) -> list[dict]:
    """One annotation an object that is seen at all, without ``id`` and ``video_id``.

    Args:
        frames: the drawn frames of the clip.
        min_area: an object with fewer visible pixels counts as absent in that frame.

    Returns:
        dicts with ``category_id``, ``iscrowd``, ``height``, ``width``, ``length`` and the lists
        ``bboxes`` ([x, y, w, h] in pixels), ``areas`` (visible pixels) and ``segmentations``
        (compressed run-length codes), one entry a frame, None where the object is absent.
    """
    annotations = []
    for index in clip.objects:
        masks = [frame.mask(index) for frame in frames]
        masks = [mask if mask.sum() >= max(min_area, 1) else None for mask in masks]
        if all(mask is None for mask in masks):
            continue
        annotations.append(
            {
                "category_id": clip.sprites[index].category.id,
                "iscrowd": 0,
                "height": clip.height,
                "width": clip.width,
                "length": clip.length,
                "bboxes": [None if m is None else _box(m) for m in masks],
                "areas": [None if m is None else int(m.sum()) for m in masks],
                "segmentations": [None if m is None else encode_rle(m, RLE_STRING) for m in masks],
            }
        )
    return annotations


def _check_arguments(num_train, num_val, seed, lengths, size) -> None:
    if len(lengths) != 2 or len(size) != 2:
        raise ValueError(
            "length must be a number of frames or (fewest, most), and size (height, width), "
            f"got {lengths} and {size}"
        )
    check_integers(
        {
            "num_train": (num_train, 0, 99_999),  # folder names have five digits
            "num_val": (num_val, 0, 99_999),
            "seed": (seed, 0, 2**32 - 1),
            "length": (lengths[0], 1, 99_999),
            "greatest length": (lengths[1], lengths[0], 99_999),
            "height": (size[0], _LEAST_SIDE, _MOST_SIDE),
            "width": (size[1], _LEAST_SIDE, _MOST_SIDE),
        }
    )
    if num_train + num_val == 0:
        raise ValueError("nothing to write: num_train and num_val are both 0")


def _write_clip(
    folder: Path, split: str, index: int, clip: Clip, min_area: int
) -> tuple[dict, list[dict]]:
    """Write the frames of one clip; returns its ``videos`` entry and its annotations."""
    frames = [render(clip.scene(t), t) for t in range(clip.length)]
    names = [f"{index:05d}/{t:05d}.jpg" for t in range(clip.length)]
    for name, frame in zip(names, frames):
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        done, data = cv2.imencode(".jpg", frame.image[:, :, ::-1], quality)
        assert done, "cv2 could not encode a JPEG"
        write_bytes(folder / split / "JPEGImages" / name, data.tobytes())
    video = {
        "id": SPLITS.index(split) * 1_000_000 + index + 1,
        "height": clip.height,
        "width": clip.width,
        "length": clip.length,
        "file_names": names,
        "events": list(clip.events),
    }
    return video, annotate_clip(clip, frames, min_area)


def _write_annotations(folder: Path, split: str, clips: list, style: ClipStyle) -> None:
    """Write the json files of one split; ``clips`` are the results of ``_write_clip``."""
    annotations = []
    for video, found in clips:
        for annotation in found:
            number = {"id": len(annotations) + 1, "video_id": video["id"]}
            annotations.append({**number, **annotation})
    data = {
        "info": {"description": "moving shapes"},
        "videos": [video for video, _ in clips],
        "categories": [
            {"id": c.id, "name": c.name, "supercategory": "shape"}
            for c in CLIP_CATEGORIES
            if c.name in style.classes
        ],
        "annotations": annotations,
    }
    path = folder / "annotations" / f"instances_{split}.json"
    if split == "train":
        write_json(path.with_name("instances_train_masks.json"), data)
        data = {**data, "annotations": [_without_masks(a) for a in annotations]}
    write_json(path, data)


def _without_masks(annotation: dict) -> dict:
    """A copy with boxes only, whose areas are those of the boxes."""
    bare = {key: value for key, value in annotation.items() if key != "segmentations"}
    bare["areas"] = [box and box[2] * box[3] for box in annotation["bboxes"]]
    return bare


def _box(mask: np.ndarray) -> list[int]:
    """Tight box [x, y, w, h] of an (H, W) bool mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
