"""Hooks of the trainer."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm import tqdm

from ..data.seeding import derive_seed
from .progress import log_above_bars, shows_bars

_BAR_PERIOD = 10  # iterations between updates of the losses beside the bar


class IterationSeed(HookBase):
    """Seeds all random numbers of an iteration from (seed of the run, iteration, process).

    A run that is resumed therefore draws what the uninterrupted run would have drawn, without
    storing the state of any generator. The seed itself is kept in the checkpoint, because it is
    random where the config sets none.
    """

    def __init__(self, seed: int):
        """
        Args:
            seed: of the run, the same in all processes.
        """
        self.seed = seed

    def before_step(self) -> None:
        """Seed Python, numpy and torch (all devices)."""
        # The last number keeps these seeds apart from those of the data, (seed, position).
        seed = derive_seed(self.seed, self.trainer.iter, comm.get_rank(), 1)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {"seed": self.seed}

    def load_state_dict(self, state: dict) -> None:
        """Take over the seed of the run that wrote the checkpoint."""
        self.seed = int(state["seed"])


class TrainingProgress(HookBase):
    """A bar with the losses and the remaining time; nothing where no bars are drawn."""

    def __init__(self):
        self._bar = None
        self._context = contextlib.ExitStack()

    def before_train(self) -> None:
        """Open the bar."""
        if not shows_bars():
            return
        start, end = self.trainer.start_iter, self.trainer.max_iter
        self._context.enter_context(log_above_bars())
        self._bar = self._context.enter_context(
            tqdm(desc="Training", initial=start, total=end, unit="it", dynamic_ncols=True)
        )

    def after_step(self) -> None:
        """Advance the bar."""
        if self._bar is None:
            return
        if self._bar.n % _BAR_PERIOD == 0:
            latest = self.trainer.storage.latest()
            self._bar.set_postfix_str(_losses(latest), refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        """Close the bar, also after an error."""
        self._context.close()
        self._bar = None


def _losses(scalars: dict[str, tuple[float, int]]) -> str:
    losses = [(name, value) for name, (value, _) in scalars.items() if "loss" in name]
    losses.sort(key=lambda item: (item[0] != "total_loss", item[0]))
    return " ".join(f"{name.replace('loss_', '')} {value:.3f}" for name, value in losses)
