"""Writing videos that every player shows: H.264, 4:2:0, through PyAV."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from .canvas import to_rgb
from .video_file import import_av

logger = logging.getLogger(__name__)

WRITABLE_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
_BT709, _LIMITED_RANGE = 1, 1  # numbers of ISO/IEC 23091-2
_LARGEST_MPEG4_TICKS = 65535


def require_writer() -> None:
    """Raise ImportError if videos cannot be written, before there is anything to write."""
    try:
        import_av()
    except ImportError as error:
        raise ImportError(
            "Overlay videos need PyAV: `pip install av`, or write them as pictures by --no-video "
            "--frames."
        ) from error


class VideoWriter:
    """Writes RGB frames to a video file; a context manager.

    The file is made with the first frame, which sets its size. 4:2:0 needs even sizes: the last
    row or column of an odd frame is repeated once. Colours are stored, and tagged, as BT.709.
    """

    def __init__(self, path: str | os.PathLike, fps: float | Fraction, *, quality: int = 18):
        """
        Args:
            path: file to write, with a suffix of `WRITABLE_SUFFIXES`; it is replaced.
            fps: frames per second.
            quality: x264's constant rate factor: 18 is nearly lossless, 28 small.

        Raises:
            ValueError: another suffix, or a rate that is not positive.
            ImportError: PyAV is missing.
        """
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITABLE_SUFFIXES:
            raise ValueError(f"cannot write a video to {path}: use one of {WRITABLE_SUFFIXES}")
        if not fps > 0:
            raise ValueError(f"{fps} frames per second for {path}: use a positive number")
        self.fps = Fraction(fps).limit_denominator(1001)
        self._quality = quality
        self._av = import_av()
        self._container = None
        self._size: tuple[int, int] | None = None
        self._count = 0

    def write(self, frame_rgb: np.ndarray) -> None:
        """Append a frame.

        Args:
            frame_rgb: (H, W, 3) RGB or (H, W) gray, values in [0, 255].

        Raises:
            ValueError: a size other than that of the first frame.
        """
        image = to_rgb(frame_rgb)
        if self._container is None:
            self._open(image.shape[:2])
        if image.shape[:2] != self._size:
            raise ValueError(
                f"frame {self._count} of {self.path} is {image.shape[1]} x {image.shape[0]}, but "
                f"the first one was {self._size[1]} x {self._size[0]}"
            )
        odd = [(0, side % 2) for side in image.shape[:2]]
        image = np.pad(image, [*odd, (0, 0)], mode="edge") if any(x for _, x in odd) else image
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = self._count, 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> None:
        """Write what the encoder still holds; a video without a frame leaves no file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        container.mux(self._stream.encode(None))
        container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, size: tuple[int, int]) -> None:
        self._size = tuple(size)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        codec, options = "libx264", {"crf": str(self._quality), "preset": "veryfast"}
        if codec not in self._av.codecs_available:
            logger.warning("This PyAV has no libx264: %s is written as MPEG-4 Part 2.", self.path)
            codec, options = "mpeg4", {"qscale": "3"}
            if self.fps.numerator > _LARGEST_MPEG4_TICKS:
                self.fps = Fraction(max(1, round(self.fps)))
        # faststart: the index comes first, so that a browser plays before it has everything.
        flags = {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        self._container = self._av.open(os.fspath(self.path), mode="w", options=flags)
        self._stream = self._container.add_stream(codec, rate=self.fps, options=options)
        context = self._stream.codec_context
        context.width, context.height = (side + side % 2 for side in reversed(size))
        context.pix_fmt = "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
