"""The one place where data loaders and mappers are chosen."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable

import torch.utils.data as torchdata
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
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
from .video.checks import require_frames
from .video.load import load_clip_dicts
from .video.ratio_sampler import RatioSampler

logger = logging.getLogger(__name__)

# Names of mappers in yaml files of the Mask2Former family: what a video model is trained on here.
# The family's video training reads no name, so all but the first leave a model with its clips.
FAMILY_MAPPERS = {
    "coco_instance_lsj": "BoxImageMapper",
    "": "ClipMapper",
    "coco_instance_new_baseline": "ClipMapper",
    "coco_panoptic_lsj": "ClipMapper",
    "coco_panoptic_new_baseline": "ClipMapper",
    "mask_former_instance": "ClipMapper",
    "mask_former_panoptic": "ClipMapper",
    "mask_former_semantic": "ClipMapper",
}


def build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[dict], dict | None]:
    """The mapper of :func:`mapper_name`.

    Raises:
        ValueError: if no mapper has this name, or the settings of its augmentations are impossible.
    """
    name = mapper_name(cfg)
    if name not in MAPPER_REGISTRY:
        names = ", ".join(sorted(name for name, _ in MAPPER_REGISTRY))
        raise ValueError(f"INPUT.MAPPER is '{name}', which is none of: {names}.")
    return MAPPER_REGISTRY.get(name)(cfg, is_train)


def mapper_name(cfg: CfgNode) -> str:
    """INPUT.MAPPER, or where it is empty the name of the mapper that fits the model.

    That of a video model follows from INPUT.DATASET_MAPPER_NAME, see ``FAMILY_MAPPERS``.

    Raises:
        ValueError: if INPUT.DATASET_MAPPER_NAME of a video model is no name of the family.
    """
    if cfg.INPUT.MAPPER:
        return cfg.INPUT.MAPPER
    if cfg.MODEL.META_ARCHITECTURE != "MaskFreeVIS":
        return "InstanceMapper"
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in FAMILY_MAPPERS:
        raise ValueError(
            f"INPUT.DATASET_MAPPER_NAME is '{name}'. Set it to 'coco_instance_lsj' to train on "
            f"single images, or to '' to train on clips; also known are {sorted(FAMILY_MAPPERS)}."
        )
    return FAMILY_MAPPERS[name]


def takes_clips(cfg: CfgNode) -> bool:
    """Whether the data sets may be videos, mixed, and differ in their supervision."""
    is_video_model = cfg.MODEL.META_ARCHITECTURE == "MaskFreeVIS"
    return is_video_model or mapper_name(cfg) in ("BoxImageMapper", "ClipMapper")


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """The training loader of this process for DATASETS.TRAIN.

    All processes must call it together: without SEED they agree on a random one.

    Raises:
        DatasetError: if nothing can be trained on.
        ValueError: if the batch cannot be divided, the sampler or the mapper is unknown, or an
            augmentation has impossible settings.
    """
    mapper = build_mapper(cfg, is_train=True)  # first: a wrong config need not wait for the data
    dicts = load_train_dicts(cfg)
    videos = sum("file_names" in record for record in dicts)
    logger.info(
        "Training on %d images and %d videos of %s",
        *(len(dicts) - videos, videos, ", ".join(cfg.DATASETS.TRAIN)),
    )
    return TrainLoader(
        dicts,
        mapper,
        _sampler_maker(cfg, dicts),
        batch_size=images_per_process(cfg),
        seed=run_seed(cfg),
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> torchdata.DataLoader:
    """The loader of this process's share of a test set, one image or video per batch."""
    mapper = build_mapper(cfg, is_train=False)
    if not takes_clips(cfg):
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)
    # Annotations are nested by frame there, which detectron2's statistics cannot read.
    dicts = [
        {**{k: v for k, v in record.items() if k != "annotations"}, "source": dataset_name}
        for record in DatasetCatalog.get(dataset_name)
    ]
    require_frames(dicts, dataset_name)
    workers = cfg.DATALOADER.NUM_WORKERS
    return build_detection_test_loader(dataset=dicts, mapper=mapper, num_workers=workers)


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
    """The images or videos of DATASETS.TRAIN, without annotations that cannot be trained on."""
    if not cfg.DATASETS.TRAIN:
        raise DatasetError("DATASETS.TRAIN is empty; name at least one registered data set.")
    if takes_clips(cfg):
        return load_clip_dicts(cfg)
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
    if cfg.DATASETS.DATASET_RATIO:
        return _ratio_sampler_maker(cfg, dicts)
    if name == "TrainingSampler":
        return lambda seed: TrainingSampler(len(dicts), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            [_with_flat_annotations(record) for record in dicts], loader.REPEAT_THRESHOLD
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


def _with_flat_annotations(record: dict) -> dict:
    """The record itself, or of a video all its objects in one list instead of one per frame."""
    if "file_names" not in record:
        return record
    return {"annotations": list(itertools.chain.from_iterable(record["annotations"]))}


def _ratio_sampler_maker(cfg: CfgNode, dicts: list[dict]) -> Callable[[int], Iterable[int]]:
    names, ratios = list(cfg.DATASETS.TRAIN), list(cfg.DATASETS.DATASET_RATIO)
    is_plain = cfg.DATALOADER.SAMPLER_TRAIN == "TrainingSampler"
    if not takes_clips(cfg) or not is_plain or len(set(names)) != len(names):
        raise ValueError(
            "DATASETS.DATASET_RATIO works with MODEL.META_ARCHITECTURE MaskFreeVIS, "
            "DATALOADER.SAMPLER_TRAIN TrainingSampler and DATASETS.TRAIN without repetition; got "
            f"{cfg.MODEL.META_ARCHITECTURE}, {cfg.DATALOADER.SAMPLER_TRAIN} and {names}. Set "
            "DATASETS.DATASET_RATIO to []."
        )
    groups = [[i for i, x in enumerate(dicts) if x["source"] == name] for name in names]
    RatioSampler(groups, ratios, seed=0)  # wrong ratios are an error here, not in a worker
    return lambda seed: RatioSampler(groups, ratios, seed)
