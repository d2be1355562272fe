"""Progress bars with an estimate of the remaining time.

A bar is drawn only on a terminal, by the main process. Elsewhere (a log file, a pipe, another
process) detectron2's own lines, which state the remaining time too, are all that is printed.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

from detectron2.utils import comm
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

_LOGGERS = ("detectron2", "fvcore", "msr_d2")


def shows_bars() -> bool:
    """Whether this process draws progress bars."""
    return comm.is_main_process() and sys.stderr.isatty()


def log_above_bars() -> contextlib.AbstractContextManager:
    """While it is open, log lines appear above a bar and do not tear it."""
    return logging_redirect_tqdm([logging.getLogger(name) for name in _LOGGERS])


class ProgressLoader:
    """A loader that draws a bar while it is iterated over."""

    def __init__(self, loader: Iterable, title: str):
        """
        Args:
            loader: any iterable with a length.
            title: shown before the bar.
        """
        self._loader = loader
        self._title = title

    def __len__(self) -> int:
        assert isinstance(self._loader, Sized)
        return len(self._loader)

    def __iter__(self) -> Iterator:
        if not shows_bars():
            yield from self._loader
            return
        with log_above_bars(), tqdm(self._loader, self._title, leave=False) as bar:
            yield from bar


class ProgressSequence(Sequence):
    """A sequence whose elements are loaded by somebody else; a bar follows the last one loaded.

    To be used in a ``with`` statement. Elements are asked for by index.
    """

    def __init__(self, items: Sequence, title: str):
        """
        Args:
            items: anything with a length and indices.
            title: shown before the bar.
        """
        self._items = items
        self._title = title
        self._open = contextlib.ExitStack()
        self._bar: tqdm | None = None

    def __enter__(self) -> ProgressSequence:
        if shows_bars():
            self._open.enter_context(log_above_bars())
            bar = tqdm(total=len(self._items), desc=self._title, leave=False)
            self._bar = self._open.enter_context(bar)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()
        self._bar = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        item = self._items[index]
        if self._bar is not None:
            self._bar.update(max(0, index % len(self._items) + 1 - self._bar.n))
        return item
