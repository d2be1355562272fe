"""The one place where data loaders and mappers are chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import torch.utils.data as torchdata
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm

from .checks import check_dataset_dicts
from .errors import DatasetError
from .mapper import MAPPER_REGISTRY
from .seeding import derive_seed
from .train_loader import TrainLoader

logger = logging.getLogger(__name__)


def build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[dict], dict | None]:
    """The mapper named by INPUT.MAPPER.

    Raises:
        ValueError: if no mapper has this name.
    """
    if cfg.INPUT.MAPPER not in MAPPER_REGISTRY:
        names = ", ".join(sorted(name for name, _ in MAPPER_REGISTRY))
        raise ValueError(f"INPUT.MAPPER is '{cfg.INPUT.MAPPER}', which is none of: {names}.")
    return MAPPER_REGISTRY.get(cfg.INPUT.MAPPER)(cfg, is_train)


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """The training loader of this process for DATASETS.TRAIN.

    All processes must call it together: without SEED they agree on a random one.

    Raises:
        DatasetError: if no image can be trained on.
        ValueError: if the batch cannot be divided, or the sampler is unknown.
    """
    dicts = load_train_dicts(cfg)
    logger.info("Training on %d images of %s", len(dicts), ", ".join(cfg.DATASETS.TRAIN))
    return TrainLoader(
        dicts,
        build_mapper(cfg, is_train=True),
        _sampler_maker(cfg, dicts),
        batch_size=images_per_process(cfg),
        seed=run_seed(cfg),
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> torchdata.DataLoader:
    """The loader of this process's share of a test set, one image per batch."""
    mapper = build_mapper(cfg, is_train=False)
    return build_detection_test_loader(cfg, dataset_name, mapper=mapper)


def run_seed(cfg: CfgNode) -> int:
    """SEED, or a random number that all processes agree on where it is negative."""
    return cfg.SEED if cfg.SEED >= 0 else int(comm.shared_random_seed())


def images_per_process(cfg: CfgNode) -> int:
    """Batch size of one process.

    Raises:
        ValueError: if SOLVER.IMS_PER_BATCH is not a multiple of the number of processes.
    """
    total, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if total < 1 or total % processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {total}; with {processes} processes it must be a positive "
            f"multiple of {processes}."
        )
    return total // processes


def load_train_dicts(cfg: CfgNode) -> list[dict]:
    """The images of DATASETS.TRAIN, without annotations that cannot be trained on."""
    if not cfg.DATASETS.TRAIN:
        raise DatasetError("DATASETS.TRAIN is empty; name at least one registered data set.")
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    proposals = cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    name = ", ".join(cfg.DATASETS.TRAIN)
    try:
        dicts = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty, keypoints, proposal_files=proposals
        )
    except AssertionError as error:
        raise DatasetError(_nothing_to_train_on(name, str(error))) from error
    dicts = check_dataset_dicts(dicts, name, with_masks=cfg.MODEL.MASK_ON)
    if filter_empty and "annotations" in dicts[0]:
        dicts = filter_images_with_only_crowd_annotations(dicts)
    if not dicts:
        raise DatasetError(_nothing_to_train_on(name, "every annotation was left out"))
    return dicts


def _nothing_to_train_on(name: str, reason: str) -> str:
    return (
        f"dataset '{name}' cannot be trained on: {reason} An image counts only with an annotation "
        "that is not marked iscrowd (some tools mark every run-length mask so: set iscrowd to 0 "
        "there); with DATALOADER.FILTER_EMPTY_ANNOTATIONS False images without objects are kept."
    )


def _sampler_maker(cfg: CfgNode, dicts: list[dict]) -> Callable[[int], Iterable[int]]:
    name, loader = cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER
    if name == "TrainingSampler":
        return lambda seed: TrainingSampler(len(dicts), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, loader.REPEAT_THRESHOLD
        )
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if name == "RandomSubsetTrainingSampler":
        ratio = loader.RANDOM_SUBSET_RATIO
        return lambda seed: RandomSubsetTrainingSampler(
            len(dicts), ratio, seed_shuffle=seed, seed_subset=derive_seed(seed)
        )
    raise ValueError(
        f"DATALOADER.SAMPLER_TRAIN is '{name}'; known are TrainingSampler, "
        "RepeatFactorTrainingSampler and RandomSubsetTrainingSampler."
    )
