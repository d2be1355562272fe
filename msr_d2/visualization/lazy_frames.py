"""Frames that are loaded when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any


class LazyFrames(Sequence):
    """A sequence that holds no frames: an index loads one, a slice is a view without loading."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> Any:
        """Load one frame; `index` is in [0, len)."""

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return FrameView(self, range(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.load(range(len(self))[index])


class FrameView(LazyFrames):
    """Some frames of another sequence, loaded from there."""

    def __init__(self, source: Sequence, indices: range):
        """
        Args:
            source: frames by index.
            indices: those that the view shows, in its order.
        """
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def load(self, index: int) -> Any:
        """Load one frame from the source."""
        return self._source[self._indices[index]]
