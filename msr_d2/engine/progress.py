"""Progress bars with an estimate of the remaining time.

A bar is drawn only on a terminal, by the main process. Elsewhere (a log file, a pipe, another
process) detectron2's own lines, which state the remaining time too, are all that is printed.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sized

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
