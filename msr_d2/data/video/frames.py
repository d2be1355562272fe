"""The frames of a video that are loaded only when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import overload

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from ..bad_images import BAD_IMAGE_ERRORS, describe
from ..errors import DatasetError

# Of a slice; decoding and resizing release Python's lock.
_THREADS = 4


class FrameSequence(Sequence):
    """Resized frames of a video as a sequence of uint8 tensors (3, H, W).

    Frames are read and resized on access and not kept, so memory does not grow with the video. It
    holds names and numbers only and can be pickled.
    """

    def __init__(
        self,
        file_names: Sequence[str],
        size: tuple[int, int],
        resized: tuple[int, int],
        image_format: str,
    ):
        """
        Args:
            file_names: one image file per frame.
            size: height and width in pixels that every file must have.
            resized: height and width in pixels of the tensors.
            image_format: of the tensors, "RGB" or "BGR".
        """
        self._file_names = list(file_names)
        self._size = size
        self._resized = resized
        self._image_format = image_format

    def __len__(self) -> int:
        return len(self._file_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every tensor, without loading one."""
        return self._resized

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...

    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        """One frame, or the list of frames of a slice.

        Raises:
            DatasetError: if a file cannot be read or has another size; names the file.
        """
        if not isinstance(index, slice):
            return self._load(self._file_names[index])
        names = self._file_names[index]
        if len(names) < 2:
            return [self._load(name) for name in names]
        with ThreadPoolExecutor(min(_THREADS, len(names))) as pool:
            return list(pool.map(self._load, names))

    def _load(self, file_name: str) -> torch.Tensor:
        try:
            image = read_frame(file_name, self._size, self._image_format)
        except BAD_IMAGE_ERRORS as error:
            raise DatasetError(describe(error, file_name)) from error
        if self._resized != self._size:
            image = T.ResizeTransform(*self._size, *self._resized).apply_image(image)
        return to_tensor(image)


def read_frame(file_name: str, size: tuple[int, int] | None, image_format: str) -> np.ndarray:
    """Read an image (H, W, 3), uint8; with a `size` (height, width), check that it has it.

    Raises:
        SizeMismatchError: if its height and width are not `size`.
        OSError: and others of ``BAD_IMAGE_ERRORS``, if it is missing or damaged.
    """
    image = utils.read_image(file_name, format=image_format)
    if size is not None:
        stated = {"file_name": file_name, "height": size[0], "width": size[1]}
        utils.check_image_size(stated, image)
    return image


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """An image (H, W, 3) as tensor (3, H, W)."""
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
