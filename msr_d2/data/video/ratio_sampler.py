"""Mixing data sets in given proportions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.utils.data as torchdata
from detectron2.utils import comm

from ..seeding import derive_seed


class RatioSampler(torchdata.Sampler):
    """An endless stream of indices whose data sets come up in given proportions.

    Every position draws its data set independently with probability ratio / sum of ratios, so the
    stream of any process has this mixture on average. Its batches have it, too, unless they are
    grouped by aspect ratio (DATALOADER.ASPECT_RATIO_GROUPING): where one set is wide and another
    tall, a batch is of one of them. Within a data set the stream goes through all of it in random
    order before anything comes again. All processes compute the same stream and each takes its
    share.
    """

    def __init__(self, groups: Sequence[Sequence[int]], ratios: Sequence[float], seed: int):
        """
        Args:
            groups: the indices that belong to each data set.
            ratios: how often each comes up relative to the others; 0 leaves it out.
            seed: the same in all processes.

        Raises:
            ValueError: if the lengths differ, a ratio is negative, none is positive, or a data set
                that is wanted is empty.
        """
        is_valid = len(groups) == len(ratios) and all(r >= 0 for r in ratios) and any(ratios)
        if not is_valid or any(r > 0 and not g for g, r in zip(groups, ratios)):
            raise ValueError(
                f"DATASETS.DATASET_RATIO is {list(ratios)} for {len(groups)} data sets of "
                f"{[len(group) for group in groups]} items; it must have one number for each of "
                "DATASETS.TRAIN, none negative and not all 0."
            )
        self._groups = [list(group) for group in groups]
        self._ratios = torch.tensor(ratios, dtype=torch.float64)
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        return itertools.islice(self._stream(), rank, None, world_size)

    def _stream(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, 0))
        members = [
            _endless(group, derive_seed(self._seed, 1 + i)) for i, group in enumerate(self._groups)
        ]
        while True:
            chosen = torch.multinomial(self._ratios, 1024, replacement=True, generator=generator)
            for i in chosen.tolist():
                yield next(members[i])


def _endless(group: list[int], seed: int) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for i in torch.randperm(len(group), generator=generator).tolist():
            yield group[i]
