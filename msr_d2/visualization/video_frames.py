"""The frames of a video by index, whether it is a file or a folder of pictures."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from .lazy_frames import LazyFrames


class VideoError(ValueError):
    """A video that cannot be read; the message names the file and the cure."""


class VideoFrames(LazyFrames):
    """Frames of one video, each a (H, W, 3) uint8 RGB array. Open one with :meth:`open`.

    Attributes:
        path: the video file or the folder.
        fps: frames per second; of a folder what was said when it was opened.
        size: (height, width) in pixels, as displayed: a rotation in the file is applied.
        names: T names of the frames, unique within the video and good as file names.
    """

    path: Path
    fps: Fraction
    size: tuple[int, int]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @staticmethod
    def open(path: str | os.PathLike, fps: float | Fraction | None = None) -> VideoFrames:
        """Open a video file or a folder of pictures, by what `path` is.

        Args:
            path: a file that FFmpeg can read, or a folder whose pictures are the frames in natural
                order (2 before 10).
            fps: frames per second of a folder, 6 by default; replaces that of a file if given.

        Raises:
            VideoError: nothing is there, or it cannot be read.
        """
        # Both are made of this class.
        from .folder_frames import FolderFrames
        from .video_file import FileFrames

        path = Path(path).expanduser()
        if not path.exists():
            raise VideoError(f"{path}: no such file or folder")
        frames = FolderFrames(path) if path.is_dir() else FileFrames(path)
        if fps is not None:
            if not fps > 0:
                raise VideoError(f"{fps} frames per second for {path}: use a positive number")
            frames.fps = Fraction(fps).limit_denominator(1001)
        return frames

    def close(self) -> None:
        """Let go of the file; frames cannot be loaded any more."""

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
