"""What the inputs of the demo are: videos or single images."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..visualization.folder_frames import IMAGE_SUFFIXES, frame_files
from ..visualization.video_file import VIDEO_SUFFIXES
from .demo import is_overlay

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """Inputs by kind, each without repetitions.

    Attributes:
        videos: video files, and folders whose pictures are the frames of a video.
        images: pictures that have nothing to do with each other.
    """

    videos: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)


def sort_inputs(
    inputs: Iterable[str], output: str | os.PathLike | None = None, *, per_image: bool = False
) -> Inputs:
    """Tell videos and images apart, for a model that takes both.

    Args:
        inputs: a picture is an image, another file a video. The pictures of a folder are the
            frames of one video; a folder without pictures stands for the video files in it. A
            pattern (``**`` for any depth) stands for the files and folders it matches.
        output: folder of the overlays; what an earlier run left there is no input.
        per_image: take the pictures of folders as images, too.

    Raises:
        ValueError: an input that is neither; names it and says what it may be.
    """
    found = Inputs()
    for text in inputs:
        path = Path(text).expanduser()
        paths = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not path.exists():
            paths = [x for x in paths if not is_overlay(x, output)]
        before = len(found.videos) + len(found.images)
        for item in paths:
            _sort(item, path == item, output, per_image, found)
        if len(found.videos) + len(found.images) == before:
            raise ValueError(
                f"--input {text}: no video, no picture and no folder with either "
                f"({', '.join((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))})"
            )
    found = Inputs(_distinct(found.videos), _distinct(found.images))
    if len(found.images) > 1 and not per_image:
        logger.info(
            "%d pictures are taken as separate images; name their folder to have them taken as "
            "the frames of one video.",
            len(found.images),
        )
    return found


def refuse_videos(inputs: Iterable[str], architecture: str) -> None:
    """Say what to do about videos among the inputs of a model for images.

    Args:
        inputs: as the user wrote them.
        architecture: MODEL.META_ARCHITECTURE.

    Raises:
        ValueError: one of them is a video file, or a folder with nothing but videos.
    """
    for text in inputs:
        path = Path(text).expanduser()
        only_videos = path.is_dir() and _video_files(path) and not frame_files(path)
        if path.suffix.lower() in VIDEO_SUFFIXES or only_videos:
            raise ValueError(
                f"--input {text} is a video, and {architecture} finds objects in single images: "
                "use a config of a video model, or write the frames to a folder first, for "
                "example with `ffmpeg -i video.mp4 frames/%06d.png`"
            )


def _sort(
    path: Path, is_named: bool, output: str | os.PathLike | None, per_image: bool, found: Inputs
) -> None:
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            found.images.append(path)
        elif suffix in VIDEO_SUFFIXES or is_named:
            found.videos.append(path)
        return
    pictures = [x for x in frame_files(path) if not is_overlay(x, output)]
    videos = [x for x in _video_files(path) if not is_overlay(x, output)]
    if pictures and per_image:
        found.images += pictures
    elif pictures and videos:
        raise ValueError(
            f"--input {path} has pictures ({pictures[0].name}, ...) and videos ({videos[0].name}, "
            "...): name the files that you mean, for example by a quoted pattern"
        )
    elif pictures:
        found.videos.append(path)
    else:
        found.videos += videos


def _video_files(folder: Path) -> list[Path]:
    return sorted(x for x in folder.iterdir() if x.is_file() and x.suffix.lower() in VIDEO_SUFFIXES)


def _distinct(paths: list[Path]) -> list[Path]:
    return list({path.resolve(): path for path in reversed(paths)}.values())[::-1]
