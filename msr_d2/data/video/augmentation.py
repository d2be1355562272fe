"""Augmentations of clips: drawn once, before any frame is touched, then applied to all frames.

A draw gives one transform per frame, all of them equal where an augmentation goes "by clip". It
depends on the frame size, the number of frames and a generator only, so it does not matter how
often, in which order or in which process the frames are transformed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform, TransformList

ROTATION = "rotation"
_ANGLES = (-15.0, 15.0)  # degrees
_CENTERS = (0.4, 0.6)  # relative to width and height
# What INPUT.CROP.SIZE is for each INPUT.CROP.TYPE.
_CROP_SIZES = {
    "relative": "(height, width) as fractions, above 0 and at most 1",
    "relative_range": "the least (height, width) as fractions, above 0 and at most 1",
    "absolute": "(height, width) in whole pixels, at least 1",
    "absolute_range": "(least, greatest) length of a side in whole pixels, at least 1",
}

Size = tuple[int, int]


class ClipAugmentation(ABC):
    """Something that is drawn for a whole clip."""

    @abstractmethod
    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        """One transform per frame.

        Args:
            size: height and width of the frames in pixels.
            num_frames: frames of the clip.
            generator: source of all randomness.
        """


def draw_transforms(
    augmentations: Sequence[ClipAugmentation],
    size: Size,
    num_frames: int,
    generator: np.random.Generator,
) -> list[TransformList]:
    """Draw augmentations one after the other, each for the frame size that the last one leaves.

    Returns:
        for each frame the transforms to apply; frames have the same size afterwards.
    """
    per_frame: list[list[Transform]] = [[] for _ in range(num_frames)]
    for augmentation in augmentations:
        drawn = augmentation.draw(size, num_frames, generator)
        for transforms, transform in zip(per_frame, drawn):
            transforms.append(transform)
        size = output_size(drawn[0], size)
    return [TransformList(transforms) for transforms in per_frame]


def output_size(transform: Transform, size: Size) -> Size:
    """Height and width of an image of `size` after `transform`."""
    if isinstance(transform, TransformList):
        for part in transform.transforms:
            size = output_size(part, size)
        return size
    if isinstance(transform, T.ResizeTransform):
        return transform.new_h, transform.new_w
    if isinstance(transform, T.CropTransform):
        return transform.h, transform.w
    return size


class ResizeShortestEdgeByClip(ClipAugmentation):
    """Scales the shorter side to one length for the clip, the longer side at most `max_size`."""

    def __init__(
        self,
        lengths: Sequence[int],
        max_size: int,
        style: str = "choice_by_clip",
        node: str = "INPUT",
    ):
        """
        Args:
            lengths: of the shorter side in pixels; 0 keeps the size.
            max_size: of the longer side in pixels.
            style: "choice_by_clip" takes one of `lengths`, "range_by_clip" an integer between the
                first and the last. "choice" and "range" are the same, as the frames of a clip must
                have one size.
            node: of the config, for messages.

        Raises:
            ValueError: for another style, or sizes that cannot be; names the key.
        """
        lengths = tuple(lengths) if isinstance(lengths, Sequence) else (lengths,)
        kind = style[: -len("_by_clip")] if style.endswith("_by_clip") else style
        if kind not in ("choice", "range"):
            raise ValueError(
                f"{node}.MIN_SIZE_TRAIN_SAMPLING is '{style}'; known are choice_by_clip, "
                "range_by_clip, choice and range."
            )
        if not lengths or any(length != int(length) or length < 0 for length in lengths):
            raise ValueError(
                f"{node}.MIN_SIZE_TRAIN is {lengths}; it must have at least one size, in whole "
                "pixels (0 keeps the size)."
            )
        if kind == "range" and lengths[0] > lengths[-1]:
            raise ValueError(
                f"{node}.MIN_SIZE_TRAIN is {lengths}; with MIN_SIZE_TRAIN_SAMPLING '{style}' it is "
                "(least, greatest). Swap them."
            )
        if max_size < 1:
            raise ValueError(f"{node}.MAX_SIZE_TRAIN is {max_size}; it must be at least 1 pixel.")
        self._lengths, self._max_size, self._is_range = lengths, max_size, kind == "range"

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        if self._is_range:
            length = int(generator.integers(self._lengths[0], self._lengths[-1] + 1))
        else:
            length = int(generator.choice(self._lengths))
        shape = resized_shape(size, length, self._max_size)
        return [T.ResizeTransform(*size, *shape)] * num_frames


def resized_shape(size: Size, length: int, max_size: int) -> Size:
    """Height and width with the shorter side scaled to `length`, but none above `max_size`.

    A `length` of 0 keeps the size.
    """
    if length == 0:
        return size
    return T.ResizeShortestEdge.get_output_shape(*size, length, max_size)


class FlipByClip(ClipAugmentation):
    """Flips all frames of a clip or none."""

    def __init__(self, probability: float = 0.5, vertical: bool = False):
        self._probability, self._vertical = probability, vertical

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        if generator.random() >= self._probability:
            return [T.NoOpTransform()] * num_frames
        flip = T.VFlipTransform(size[0]) if self._vertical else T.HFlipTransform(size[1])
        return [flip] * num_frames


class CropByClip(ClipAugmentation):
    """Cuts the same random window out of all frames."""

    def __init__(self, kind: str, size: Sequence[float], node: str = "INPUT.CROP"):
        """
        Args:
            kind, size: as INPUT.CROP.TYPE and SIZE: "relative" and "relative_range" are fractions
                (height, width), "absolute" is (height, width) in pixels, "absolute_range" is
                (least, greatest) length of either side in pixels.
            node: of the config, for messages.

        Raises:
            ValueError: for another kind, or a size that cannot be; names the key.
        """
        self._kind, self._crop_size = kind, tuple(size)
        if kind not in _CROP_SIZES:
            raise ValueError(f"{node}.TYPE is '{kind}'; known are {', '.join(_CROP_SIZES)}.")
        if not _is_crop_size(kind, self._crop_size):
            raise ValueError(
                f"{node}.SIZE is {self._crop_size}; with {node}.TYPE '{kind}' it is "
                f"{_CROP_SIZES[kind]}."
            )

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        shape = self.draw_size(size, generator)
        top, left = draw_corner(size, shape, generator)
        return [T.CropTransform(left, top, shape[1], shape[0])] * num_frames

    def draw_size(self, size: Size, generator: np.random.Generator) -> Size:
        """Height and width of the window, at most those of the frame."""
        first, second = self._crop_size
        if self._kind == "absolute":
            return min(size[0], int(first)), min(size[1], int(second))
        if self._kind == "absolute_range":
            low, high = int(first), int(second)
            height, width = (
                int(generator.integers(min(side, low), min(side, high) + 1)) for side in size
            )
            return height, width
        if self._kind == "relative_range":
            first = first + generator.random() * (1 - first)
            second = second + generator.random() * (1 - second)
        return max(int(size[0] * first + 0.5), 1), max(int(size[1] * second + 0.5), 1)


def _is_crop_size(kind: str, size: Sequence[float]) -> bool:
    if len(size) != 2 or not all(isinstance(value, (int, float)) for value in size):
        return False
    if kind.startswith("relative"):
        return all(0 < value <= 1 for value in size)
    is_pixels = all(value == int(value) and value >= 1 for value in size)
    return is_pixels and (kind == "absolute" or size[0] <= size[1])


def draw_corner(size: Size, window: Size, generator: np.random.Generator) -> tuple[int, int]:
    """Top and left of a uniformly placed window."""
    top = int(generator.integers(size[0] - window[0] + 1))
    return top, int(generator.integers(size[1] - window[1] + 1))


class RotateByClip(ClipAugmentation):
    """Rotates all frames by one angle about one point; corners are cut off, gaps are black.

    Nothing marks the black corners as no part of the picture: a clip has no mask of validity but
    its size, so losses that compare colours see the corners as a dark, still background.
    """

    def __init__(self, angles: Sequence[float] = _ANGLES, centers: Sequence[float] = _CENTERS):
        """
        Args:
            angles: least and greatest angle in degrees, counter-clockwise.
            centers: range of the centre, relative to width and height.
        """
        self._angles, self._centers = tuple(angles), tuple(centers)

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        angles = np.repeat(generator.uniform(*self._angles), num_frames)
        return self._rotations(angles, size, generator)

    def _rotations(
        self, angles: np.ndarray, size: Size, generator: np.random.Generator
    ) -> list[Transform]:
        x, y = generator.uniform(*self._centers, 2) * (size[1], size[0])
        return [T.RotationTransform(*size, angle, expand=False, center=(x, y)) for angle in angles]


class SwingByClip(RotateByClip):
    """Rotates frame after frame by sorted angles, up or down, about one point.

    The corners are black and count as picture, see :class:`RotateByClip`.
    """

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        angles = np.sort(generator.uniform(*self._angles, num_frames))
        if generator.random() < 0.5:
            angles = angles[::-1]
        return self._rotations(angles, size, generator)
