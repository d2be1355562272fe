"""The pictures of a folder as the frames of a video."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
from detectron2.data.detection_utils import read_image
from PIL import Image

from ..data.bad_images import BAD_IMAGE_ERRORS
from .video_frames import VideoError, VideoFrames

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_FOLDER_FPS = Fraction(6)  # what YouTube-VIS samples: every fifth frame of 30 a second
_SWAPPED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


class FolderFrames(VideoFrames):
    """The pictures of a folder as the frames of a video."""

    def __init__(self, path: Path):
        """
        Args:
            path: folder; pictures are taken in natural order of their names.

        Raises:
            VideoError: no pictures, or pictures of different sizes.
        """
        self.path = path
        self.fps = _FOLDER_FPS
        self._files = frame_files(path)
        if not self._files:
            raise VideoError(f"{path}: no pictures in this folder ({', '.join(IMAGE_SUFFIXES)})")
        self.names = [file.name for file in self._files]
        self.size = _picture_size(self._files[0])
        for file in self._files:
            _check_size(file, _picture_size(file), self.size)

    def load(self, index: int) -> np.ndarray:
        """Read one picture."""
        file = self._files[index]
        try:
            image = read_image(os.fspath(file), format="RGB")
        except (*BAD_IMAGE_ERRORS, ValueError) as error:
            raise _broken_picture(file, error) from error
        _check_size(file, image.shape[:2], self.size)
        return np.ascontiguousarray(image)


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The pictures directly in a folder, in natural order."""
    files = [x for x in Path(folder).iterdir() if x.suffix.lower() in IMAGE_SUFFIXES]
    return sorted((x for x in files if x.is_file()), key=lambda x: natural_key(x.name))


def natural_key(name: str) -> tuple:
    """Key that sorts numbers inside names by value: frame2 before frame10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(x) if i % 2 else x for i, x in enumerate(parts)], name


def _picture_size(file: Path) -> tuple[int, int]:
    """(height, width) of a picture as displayed, from its header."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            # Of a PNG the whole picture would be decoded to find the tag, and cameras write none.
            exif = {} if image.format == "PNG" else image.getexif()
            swapped = exif.get(0x0112) in _SWAPPED_ORIENTATIONS
    except BAD_IMAGE_ERRORS as error:
        raise _broken_picture(file, error) from error
    return (width, height) if swapped else (height, width)


def _check_size(file: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    if tuple(size) != tuple(expected):
        raise VideoError(
            f"{file} is {size[1]} x {size[0]}, but the first frame is {expected[1]} x "
            f"{expected[0]}: the frames of a video have one size. Is this a folder of separate "
            "pictures?"
        )


def _broken_picture(file: Path, error: Exception) -> VideoError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return VideoError(f"cannot read frame {file} ({reason}): replace the file or take it out")
