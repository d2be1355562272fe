"""An endless training loader that can be entered at any iteration.

detectron2's loader starts its stream of images anew when a run is resumed. Here the batches of
iteration `i` and their augmentations are a pure function of (seed, i): they depend neither on
where the run was interrupted nor on the number of worker processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.utils.data as torchdata
from detectron2.data import DatasetFromList
from detectron2.utils import comm

from .errors import DatasetError
from .seeding import seeded

# One image to load: its position in the stream over all processes, and its index in the data set.
Draw = tuple[int, int]


class TrainLoader:
    """Yields lists of mapped images, without end.

    Nothing is started before the first batch is asked for, so `seed` and `start_iter` may be set
    until then (the trainer does it when it resumes).
    """

    def __init__(
        self,
        dicts: list[dict],
        mapper: Callable[[dict], dict | None],
        make_sampler: Callable[[int], Iterable[int]],
        *,
        batch_size: int,
        seed: int,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
    ):
        """
        Args:
            dicts: images in detectron2's dataset format.
            mapper: dataset dict to model input; None skips an image, the next one with the same
                ``source`` takes its place.
            make_sampler: seed to an endless stream of indices for this process, such as
                detectron2's ``TrainingSampler``.
            batch_size: images per batch of this process.
            seed: of the run, the same in all processes.
            aspect_ratio_grouping: only batch images with each other that are all wide or all tall,
                which saves padding.
            num_workers: number of worker processes.
        """
        self.seed = seed
        self.start_iter = 0
        self._dataset = DatasetFromList(dicts, copy=False)
        self._mapper = mapper
        self._make_sampler = make_sampler
        self._batch_size = batch_size
        self._is_tall = [aspect_ratio_grouping and _is_tall(record) for record in dicts]
        self._num_workers = num_workers

    def __iter__(self) -> Iterator[list[dict]]:
        # A generator, so that `seed` and `start_iter` are read at the first batch.
        loader = torchdata.DataLoader(
            DrawnImages(self._dataset, self._mapper, self.seed),
            batch_sampler=itertools.islice(self.batches(), self.start_iter, None),
            num_workers=self._num_workers,
            collate_fn=_identity,
            # Otherwise starting the loader would take a number from the model's generator.
            generator=torch.Generator(),
        )
        batches = iter(loader)
        try:
            yield from batches
        finally:
            _stop_workers(batches)

    def batches(self) -> Iterator[list[Draw]]:
        """The batches of this process from iteration 0 on, without loading anything."""
        rank, world_size = comm.get_rank(), comm.get_world_size()
        buckets: dict[bool, list[Draw]] = {False: [], True: []}
        for count, index in enumerate(self._make_sampler(self.seed)):
            bucket = buckets[self._is_tall[index]]
            bucket.append((rank + count * world_size, index))
            if len(bucket) == self._batch_size:
                yield bucket[:]
                bucket.clear()


class DrawnImages(torchdata.Dataset):
    """Maps draws to model inputs; augmentations are seeded by (seed, position in the stream)."""

    def __init__(self, dataset: torchdata.Dataset, mapper: Callable, seed: int):
        self._dataset = dataset
        self._mapper = mapper
        self._seed = seed

    def __getitem__(self, draw: Draw) -> dict:
        position, index = draw
        record = self._dataset[index]
        with seeded(self._seed, position):
            item = self._mapper(record)
            if item is not None:
                return item
            for other in self._replacements(index, record.get("source")):
                item = self._mapper(other)
                if item is not None:
                    return item
        source = f"set '{record['source']}'" if "source" in record else "set"
        raise DatasetError(f"not a single image of the training {source} can be used; see the log.")

    def _replacements(self, index: int, source: str | None) -> Iterator[dict]:
        """The items after `index`, those of the same data set only, so that proportions stay."""
        size = len(self._dataset)
        others = (self._dataset[(index + step) % size] for step in range(1, size))
        return (record for record in others if record.get("source") == source)


def _is_tall(record: dict) -> bool:
    return record.get("width", 1) <= record.get("height", 0)


def _stop_workers(batches: Iterator) -> None:
    """End the worker processes now.

    An error keeps the iterator alive through its traceback; collected later, perhaps in a process
    that was forked meanwhile, it waits for its workers in vain and prints errors of its own.
    """
    shut_down = getattr(batches, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


def _identity(batch: list) -> list:
    return batch
