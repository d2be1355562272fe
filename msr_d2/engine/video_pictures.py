"""Pictures of what a video model finds on a data set: truth above, prediction below."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from PIL import Image

from ..evaluation.track_overlaps import MaskTrack, mask_track_iou
from ..evaluation.ytvis_eval import load_ytvis
from ..evaluation.ytvis_evaluation import RESULTS_FILE
from ..evaluation.ytvis_tracks import read_mask_track
from ..visualization import Track
from ..visualization.canvas import draw_objects, text_strip
from ..visualization.sheet import tile
from ..visualization.style import track_color
from ..visualization.video import drawable
from .trainer import results_folder

_PANEL_WIDTH = 400  # pixels; frames are resized to about this
_TEXT_SIZE = 15
_SAME_OBJECT = 0.1  # a prediction takes the colour of the object it overlaps by at least this IoU


def write_clip_pictures(
    cfg: CfgNode,
    dataset_name: str,
    results_json: str | os.PathLike | None = None,
    folder: str | os.PathLike | None = None,
    num_videos: int = 4,
    *,
    num_frames: int = 6,
    score_threshold: float = 0.3,
) -> list[Path]:
    """Draw some frames of some videos: the true tracks in a row above, the predicted ones below.

    A prediction has the colour of the object that it overlaps most, so a colour that changes along
    the row is an object that was confused with another.

    Args:
        cfg: config of the run, for the defaults of the paths.
        dataset_name: a registered data set in YouTube-VIS format, whose annotations have masks.
        results_json: result file of its evaluation; that of the run by default.
        folder: where the pictures go, one for each video; OUTPUT_DIR/pictures by default.
        num_videos: the first so many videos of the data set.
        num_frames: frames of a video, evenly spaced, the first and the last among them.
        score_threshold: predictions below it are left out.

    Returns:
        The pictures written.

    Raises:
        ValueError: results that do not fit the data set.
        OSError: a file is missing.
    """
    metadata = MetadataCatalog.get(dataset_name)
    truth = load_ytvis(metadata.json_file)
    path = Path(results_json or os.path.join(results_folder(cfg, dataset_name), RESULTS_FILE))
    results = json.loads(path.read_text())
    folder = Path(folder or os.path.join(cfg.OUTPUT_DIR, "pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    names = {x["id"]: x["name"] for x in truth["categories"]}
    written = []
    for video in truth["videos"][:num_videos]:
        true = [x for x in truth.get("annotations") or () if x["video_id"] == video["id"]]
        found = [x for x in results if x["video_id"] == video["id"]]
        found = [x for x in found if x["score"] >= score_threshold]
        tracks = clip_tracks(video, true, sorted(found, key=lambda x: -x["score"]), names)
        indices = np.unique(np.linspace(0, video["length"] - 1, num_frames).round().astype(int))
        files = [os.path.join(metadata.image_root, video["file_names"][i]) for i in indices]
        sheet = clip_sheet([read_image(x, "RGB") for x in files], indices.tolist(), *tracks)
        written.append(folder / f"video_{video['id']}.png")
        Image.fromarray(sheet).save(written[-1])
    return written


def clip_tracks(
    video: dict, true: Sequence[dict], found: Sequence[dict], names: dict[int, str]
) -> tuple[list[Track], list[Track]]:
    """True and predicted tracks of a video, in matching colours.

    Args:
        video: entry of ``videos``.
        true: its annotations.
        found: its results, the best first.
        names: name of each category id.

    Returns:
        The true tracks in the order of `true`, the predicted ones in the order of `found`. The best
        prediction of an object has its colour; all others have colours of their own.
    """
    true_masks = [read_mask_track(x, video) for x in true]
    found_masks = [read_mask_track(x, video) for x in found]
    objects = _assign(found_masks, true_masks)
    free = iter(range(len(true), len(true) + len(found)))
    colors = [track_color(next(free) if x is None else x) for x in objects]
    return (
        [
            Track(mask.rles, names[x["category_id"]], track_color(index))
            for index, (x, mask) in enumerate(zip(true, true_masks))
        ],
        [
            Track(mask.rles, f"{names[x['category_id']]} {x['score']:.2f}", color)
            for x, mask, color in zip(found, found_masks, colors)
        ],
    )


def clip_sheet(
    frames: Sequence[np.ndarray],
    indices: Sequence[int],
    true: Sequence[Track],
    found: Sequence[Track],
) -> np.ndarray:
    """Two rows of frames: true tracks, predicted tracks.

    Args:
        frames: (H, W, 3) uint8 RGB.
        indices: their numbers in the video.
        true, found: tracks of the whole video.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    rows = [("truth", true), ("prediction", found)]
    panels = [
        _panel(frame, index, tracks, f"{title}, frame {index}")
        for title, tracks in rows
        for frame, index in zip(frames, indices)
    ]
    return tile(panels, columns=len(frames))


def _panel(frame: np.ndarray, index: int, tracks: Sequence[Track], title: str) -> np.ndarray:
    """One frame with its tracks, resized before drawing, so that lines and labels stay readable."""
    height, width = frame.shape[:2]
    scale = _PANEL_WIDTH / width
    size = (_PANEL_WIDTH, max(1, round(height * scale)))
    objects = [drawable(track, index, (height, width)) for track in tracks]
    objects = [item for item in objects if item is not None]
    for item in objects:
        item.mask = _resize(item.mask.astype(np.float32), size) > 0.5
        item.box = item.box * scale
    frame = _resize(frame, size)
    picture = draw_objects(frame, objects, [], alpha=0.45, draw_boxes=False, enlarge=False)
    return np.concatenate([text_strip([title], picture.shape[1], _TEXT_SIZE), picture])


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (width, height) pixels."""
    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _assign(found: Sequence[MaskTrack], true: Sequence[MaskTrack]) -> list[int | None]:
    """For each prediction, in their order, the free object that it overlaps most, or None."""
    if not found or not true:
        return [None] * len(found)
    overlaps = mask_track_iou(found, true)
    objects: list[int | None] = []
    for row in overlaps:
        row[[x for x in objects if x is not None]] = 0
        best = int(row.argmax())
        objects.append(best if row[best] >= _SAME_OBJECT else None)
    return objects
