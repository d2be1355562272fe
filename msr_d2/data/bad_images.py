"""Counting image files that cannot be used, over all workers of a loader."""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib

import torch
from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

from .errors import TooManyBadImagesError

logger = logging.getLogger(__name__)

# What PIL and detectron2 raise for a missing, damaged or unexpected file, depending on its format.
BAD_IMAGE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    SizeMismatchError,
)


def describe(error: Exception, file_name: str) -> str:
    """One sentence: the file, what is wrong with it, and the cure."""
    if isinstance(error, SizeMismatchError):
        cure = (
            "Correct its height and width in the annotation file; if they are swapped, the file "
            "was written without regard to the EXIF orientation that detectron2 applies"
        )
    else:
        cure = "Replace the file or take it out of the annotation file"
    reason = str(error).splitlines()[0] if str(error) else "no message"
    return f"cannot use image '{file_name}' ({type(error).__name__}: {reason}). {cure}."


class BadImages:
    """Names each bad file once and stops the run when there are more than `limit` of them.

    The table lives in memory that the workers of a loader share, so a file counts once no matter
    how many workers meet it. Each process of a distributed run counts its own part of the data.
    There is no lock: of two files that workers meet at the same instant, one may count only when
    it is met again. (A shared tensor can be sent to workers by any pickler, a lock cannot.)
    """

    def __init__(self, limit: int):
        """
        Args:
            limit: number of files that may be bad; 0 stops at the first one.

        Raises:
            ValueError: if `limit` is negative.
        """
        if limit < 0:
            raise ValueError(f"DATALOADER.MAX_BAD_IMAGES must be >= 0, got {limit}.")
        self.limit = limit
        self._digests = torch.zeros(limit + 1, dtype=torch.int64).share_memory_()  # 0 = free

    def add(self, file_name: str, error: Exception) -> None:
        """Note that `file_name` failed with `error`.

        Raises:
            TooManyBadImagesError: if it is one more than allowed.
        """
        count = self._insert(file_name)
        if count is None:
            return
        message = describe(error, file_name)
        if count > self.limit:
            raise TooManyBadImagesError(
                f"{count} image files cannot be used; DATALOADER.MAX_BAD_IMAGES allows "
                f"{self.limit}. The last one: {message} The log names the others."
            )
        logger.warning("Skipped (%d of at most %d): %s", count, self.limit, message)

    def _insert(self, file_name: str) -> int | None:
        """The number of files after adding a new one, or None if it was known."""
        digest = hashlib.blake2b(file_name.encode(), digest_size=7).digest()
        number = int.from_bytes(digest, "little") | 1
        known = self._digests.tolist()
        if number in known:
            return None
        free = known.index(0) if 0 in known else self.limit
        self._digests[free] = number
        return free + 1
