"""Random numbers as a pure function of a key, so that a resumed run draws the same ones."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """A well mixed 31-bit seed from non-negative integers, such as (seed of the run, position)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generator from `key`; restore them on leaving.

    Restoring matters where samples are mapped in the training process (no workers): there the
    model's own random numbers must not depend on what the augmentations consumed.
    """
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    seed = derive_seed(*key)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
