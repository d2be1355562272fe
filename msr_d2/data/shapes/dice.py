"""Random draws whose values depend on ``Generator.random`` alone.

The other methods of ``numpy.random.Generator`` may change their streams between numpy releases;
uniform doubles are the part that has stayed put. Every draw of the shapes set goes through here,
which is what makes "same seed, same bytes" a promise that can outlive a numpy upgrade.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A seeded source of random numbers and choices.

    Args:
        seed: one or more non-negative integers; equal seeds give equal draws.
    """

    def __init__(self, seed: Sequence[int]):
        self._random = np.random.default_rng(list(seed)).random

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._random())

    def log_uniform(self, low: float, high: float) -> float:
        """A draw that is uniform in the logarithm; needs ``0 < low <= high``."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def angle(self) -> float:
        """A direction in radians, in [0, 2 pi)."""
        return self.uniform(0.0, 2.0 * math.pi)

    def integer(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return float(self._random()) < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """A key, drawn with a probability proportional to its weight."""
        point = self.uniform(0.0, sum(weights.values()))
        for key, weight in weights.items():
            point -= weight
            if point < 0:
                return key
        return key  # the draw fell on the upper edge by rounding

    def seed(self) -> int:
        """A seed for a stream of its own, e.g. of a noise texture."""
        return self.integer(0, 2**31 - 1)
