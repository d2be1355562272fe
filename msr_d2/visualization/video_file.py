"""The frames of a video file, by index, with only a few of them in memory.

Files are read through PyAV (``pip install av``), which brings FFmpeg with it.
"""

from __future__ import annotations

import logging
import os
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .video_frames import VideoError, VideoFrames

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".gif", ".y4m", ".h264", ".264", ".hevc"),
)
_UNKNOWN_FPS = Fraction(25)
_CACHE_BYTES = 128 * 2**20


class FileFrames(VideoFrames):
    """The frames of a video file.

    The file is decoded once when it is opened, to learn its frames: what containers say about
    their number is often wrong. A frame is then found by its time stamp, decoding from the key
    frame before it. Reading in order costs nothing extra, and the last frames are kept.
    """

    def __init__(self, path: Path, cache_bytes: int = _CACHE_BYTES):
        """
        Args:
            path: the file.
            cache_bytes: limit of the memory for frames that were loaded last; one always stays.

        Raises:
            VideoError: no video that FFmpeg can decode.
            ImportError: PyAV is missing.
        """
        self._av = import_av()
        self.path = path
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._rewind()
        self._scan()
        self.names = [f"{path.stem}_{index:06d}" for index in range(len(self._times))]
        height, width = self.size
        self._cache_size = max(1, cache_bytes // (3 * height * width))
        # Without usable time stamps frames are counted, always from the beginning.
        self._counted = any(a >= b for a, b in zip(self._times, self._times[1:]))
        if self._counted:
            self._keys = [0]
        self._rewind()

    def close(self) -> None:
        """Close the file and drop the frames."""
        self._cache.clear()
        self._container.close()

    def load(self, index: int) -> np.ndarray:
        """Decode one frame, or take it from the cache."""
        if index not in self._cache:
            self._go_before(index)
            found = self._decode_until(index)
            if not found:  # a seek that went too far, or a damaged file
                self._rewind()
                found = self._decode_until(index)
            if not found:
                raise VideoError(f"{self.path}: frame {index} could not be read again")
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        self._cache.move_to_end(index)
        return self._cache[index]

    def _scan(self) -> None:
        """Times of all frames, key frames, size, rotation and rate; the frames are not kept."""
        self._times, self._keys = array("q"), []
        first = None
        for frame in self._decoded:
            if first is None:
                first = frame
            if frame.key_frame:
                self._keys.append(len(self._times))
            self._times.append(-1 if frame.pts is None else frame.pts)
        if first is None:
            raise _unreadable(self.path, "no frame could be decoded")
        if self._keys[:1] != [0]:
            self._keys.insert(0, 0)
        self._turns = quarter_turns(getattr(first, "rotation", 0) or 0, self.path)
        self._coded_size = first.height, first.width
        self.size = self._coded_size[::-1] if self._turns % 2 else self._coded_size
        self.fps = _frame_rate(self._stream, self._times)

    def _rewind(self) -> None:
        """(Re)open the file at its beginning."""
        if hasattr(self, "_container"):
            self._container.close()
        try:
            self._container = self._av.open(os.fspath(self.path))
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise _unreadable(self.path, error) from error
        pictures = self._av.stream.Disposition.attached_pic
        videos = [x for x in self._container.streams.video if not x.disposition & pictures]
        if not videos:
            raise _unreadable(self.path, "it has no video stream")
        self._stream = videos[0]
        self._stream.thread_type = "AUTO"
        self._restart(0)

    def _restart(self, position: int | None) -> None:
        self._decoded = decode(self._container, self._stream, self.path)
        self._position = position  # index of the next frame; None: known when it is decoded

    def _go_before(self, index: int) -> None:
        """Move so that the next frames include `index`; on, if that is the shortest way."""
        key = self._keys[bisect_right(self._keys, index) - 1]
        if self._position is not None and key <= self._position <= index:
            return
        if key == 0:
            self._rewind()
            return
        try:
            self._container.seek(self._times[key], stream=self._stream)
        except self._av.error.FFmpegError:  # a format without seeking
            self._rewind()
        else:
            self._restart(None)

    def _decode_until(self, index: int) -> bool:
        """Decode until `index` is in the cache; False if it does not come."""
        for frame in self._decoded:
            if self._position is None or not self._counted:
                position = bisect_left(self._times, -1 if frame.pts is None else frame.pts)
            else:
                position = self._position
            self._position = position + 1
            if position == index:
                self._cache[index] = self._to_rgb(frame)
                return True
            if position > index:
                break
        self._position = None
        return False

    def _to_rgb(self, frame: Any) -> np.ndarray:
        height, width = self._coded_size
        rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, self._turns)) if self._turns else rgb


def import_av() -> ModuleType:
    """PyAV, imported when it is needed.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        import av
        import av.error
        import av.stream
    except ImportError as error:
        raise ImportError(
            "Video files need PyAV: `pip install av`. (A folder of pictures works without it.)"
        ) from error
    return av


def decode(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """All frames that can be decoded from here on; says once how many packets were damaged."""
    errors = import_av().error.FFmpegError
    damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = packet.decode()
        except errors:
            damaged += 1
            if damaged > 1000:
                break
            continue
        yield from frames
    if damaged:
        logger.warning("%s is damaged: %d packets could not be decoded.", path, damaged)


def quarter_turns(degrees: float, path: Path) -> int:
    """Quarter turns counterclockwise for a rotation in degrees; others are not applied."""
    turns = round(degrees / 90)
    if abs(degrees - 90 * turns) > 1:
        logger.warning("%s asks for a rotation by %s degrees, which is not done.", path, degrees)
        return 0
    return turns % 4


def _frame_rate(stream: Any, times: array) -> Fraction:
    """The stated rate where it agrees with the time stamps, else what these say."""
    stated = stream.average_rate or stream.guessed_rate
    span = (times[-1] - times[0]) * (stream.time_base or 0) if len(times) > 1 else 0
    measured = Fraction(len(times) - 1) / Fraction(span) if span > 0 else None
    if stated and (measured is None or abs(stated / measured - 1) < 0.05):
        return Fraction(stated)
    return (measured or _UNKNOWN_FPS).limit_denominator(1001)


def _unreadable(path: Path, reason: object) -> VideoError:
    return VideoError(
        f"{path}: no video that FFmpeg can read ({reason}). Convert it first, for example with "
        "`ffmpeg -i in out.mp4`, or give a folder of its frames."
    )
