"""Videos in, overlay videos and a file of tracks in YouTube-VIS format out."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..layers.run_lengths import text_rle
from ..visualization import TrackPainter, VideoError, VideoFrames, VideoWriter, tracks_to_draw
from ..visualization.video_writer import require_writer
from .demo import overlay_names, write_json
from .progress import ProgressLoader, ProgressSequence

logger = logging.getLogger(__name__)

TRACKS_FILE, VIDEOS_FILE = "tracks.json", "videos.json"
Predict = Callable[[Sequence[np.ndarray]], dict]


@dataclass
class VideoDemoReport:
    """What :func:`run_video_demo` did.

    Attributes:
        tracks: the result file; a YouTube-VIS result list with the extra keys of
            :func:`to_ytvis_results`. It has all tracks, also those that are not drawn.
        videos: a YouTube-VIS file without annotations: the videos (with the extra keys
            ``file_name``, ``fps``, ``overlay``) and categories that the results refer to.
        overlays: overlay videos that were written to their end.
        folders: folders with overlays as pictures, of all frames.
        skipped: videos that could not be read, with the reason. One that could be read by the
            model, but not once more to be drawn, has its tracks in the result file all the same.
    """

    tracks: Path
    videos: Path
    overlays: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """What is drawn, and what it is written to.

    Attributes:
        score_threshold: tracks below it are not drawn.
        video: write an overlay video, H.264 with rate and size of the source.
        pictures: write each overlay as a picture, too.
        suffix: file type of the pictures, ".png" or ".jpg".
    """

    score_threshold: float = 0.4
    video: bool = True
    pictures: bool = False
    suffix: str = ".png"


def run_video_demo(
    predict: Predict,
    sources: Sequence[Path],
    output: str | os.PathLike,
    *,
    categories: dict[int, str] | None = None,
    drawing: Drawing | None = None,
    fps: float | Fraction | None = None,
) -> VideoDemoReport:
    """Follow the objects of some videos; write an overlay of each and one result file.

    Frames are read twice, for the model and for drawing, and only a few are in memory. A video
    that cannot be read is named and skipped. Whatever else goes wrong, the tracks that were found
    before are written.

    Args:
        predict: a :class:`msr_d2.engine.video_predict.VideoPredictor`, or a function like it.
        sources: video files, and folders of frames.
        output: folder to write to; it is made if needed, files in it are replaced. A video
            ``clip.mp4`` gives ``clip_overlay.mp4`` and, as pictures, ``clip_overlay/000000.png``.
        categories: ``{category id: name}`` in the order of the model's classes; None for class
            indices.
        drawing: what to draw and write.
        fps: frames per second of folders; of video files, replaces theirs.

    Returns:
        What was written and what was skipped.

    Raises:
        ImportError: PyAV is missing and overlay videos are to be written.
    """
    drawing = drawing or Drawing()
    if drawing.video:
        require_writer()  # now, not after the model's work
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    report = VideoDemoReport(folder / TRACKS_FILE, folder / VIDEOS_FILE)
    found = _Found(categories)
    try:
        for source, name in zip(sources, overlay_names(sources, ".mp4")):
            try:
                with VideoFrames.open(source, fps) as frames:
                    with ProgressSequence(frames, f"Predicting {source.name}") as watched:
                        prediction = predict(watched)
                    entry = found.add(frames, prediction)
                    _write_overlays(frames, prediction, folder / name, categories, drawing, report)
                    entry["overlay"] = name if drawing.video else None
            except VideoError as error:
                report.skipped[source] = str(error)
                logger.warning("Skipped %s", error)
        found.is_complete = True
    finally:
        found.write(report)
    return report


@dataclass
class _Found:
    """What the result files will hold."""

    categories: dict[int, str] | None
    results: list[dict] = field(default_factory=list)
    videos: list[dict] = field(default_factory=list)
    is_complete: bool = False

    def add(self, frames: VideoFrames, prediction: dict) -> dict:
        """Take the tracks of a video; returns its entry, which names no overlay yet."""
        entry = _video_entry(frames, len(self.videos) + 1)
        self.results += to_ytvis_results(prediction, entry, self.categories)
        self.videos.append(entry)
        return entry

    def write(self, report: VideoDemoReport) -> None:
        """Write both files, but for an error before the first video."""
        if self.videos or self.is_complete:
            write_json(report.tracks, self.results)
            write_json(report.videos, _videos_file(self.videos, self.results, self.categories))


def to_ytvis_results(
    prediction: dict, video: dict, categories: dict[int, str] | None = None
) -> list[dict]:
    """Tracks of one video in YouTube-VIS's result format.

    Args:
        prediction: ``scores`` (N,), ``labels`` (N,) class indices, ``masks`` N lists of T run
            lengths or None.
        video: with ``id``, ``file_name`` and ``fps``.
        categories: ``{category id: name}`` in the order of the model's classes; None keeps the
            class indices.

    Returns:
        N dicts: ``video_id, category_id, score, segmentations`` (T compressed run lengths or None)
        and the extra keys ``track_id`` (the number on the overlay), ``category_name, file_name,
        fps``.
    """
    table = list(categories.items()) if categories else None
    results = []
    for index, label in enumerate(map(int, prediction["labels"])):
        category, name = table[label] if table else (label, f"class {label}")
        results.append(
            {
                "video_id": video["id"],
                "category_id": category,
                "score": float(prediction["scores"][index]),
                "segmentations": [text_rle(rle) for rle in prediction["masks"][index]],
                "track_id": index,
                "category_name": name,
                "file_name": video["file_name"],
                "fps": video["fps"],
            }
        )
    return results


def _write_overlays(
    frames: VideoFrames,
    prediction: dict,
    path: Path,
    categories: dict[int, str] | None,
    drawing: Drawing,
    report: VideoDemoReport,
) -> None:
    """Draw the tracks on all frames, into a video at `path` and a folder of pictures beside it."""
    names = list(categories.values()) if categories else None
    tracks = tracks_to_draw(prediction, names, score_threshold=drawing.score_threshold)
    painter = TrackPainter(tracks)
    folder = path.with_suffix("")
    with contextlib.ExitStack() as stack:
        if drawing.video:
            writer = stack.enter_context(VideoWriter(path, frames.fps))
        if drawing.pictures:
            folder.mkdir(exist_ok=True)
        needed = drawing.video or drawing.pictures
        for index in ProgressLoader(range(len(frames) * needed), f"Drawing {path.name}"):
            picture = painter.draw(frames[index], index)
            if drawing.video:
                writer.write(picture)
            if drawing.pictures:
                Image.fromarray(picture).save(folder / f"{index:06d}{drawing.suffix}")
    report.overlays += [path] * drawing.video
    report.folders += [folder] * drawing.pictures


def _video_entry(frames: VideoFrames, video_id: int) -> dict:
    height, width = frames.size
    return {
        "id": video_id,
        "height": height,
        "width": width,
        "length": len(frames),
        "file_names": frames.names,
        "file_name": str(frames.path),
        "fps": float(frames.fps),
        "overlay": None,
    }


def _videos_file(
    videos: list[dict], results: list[dict], categories: dict[int, str] | None
) -> dict:
    if categories is None:
        categories = {x["category_id"]: x["category_name"] for x in results}
    named = [{"id": index, "name": name} for index, name in categories.items()]
    return {"videos": videos, "categories": named}
