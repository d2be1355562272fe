"""From a video to a training clip, or to the frames of a test video."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode, configurable
from fvcore.transforms.transform import TransformList

from ..bad_images import BAD_IMAGE_ERRORS, BadImages
from ..mapper import MAPPER_REGISTRY, InstanceMapper
from .augmentation import ClipAugmentation, draw_transforms, resized_shape
from .augmentation_config import build_clip_augmentations
from .checks import check_frame
from .clip_instances import clip_instances
from .frames import FrameSequence, read_frame, to_tensor
from .pseudo_clips import PseudoClips
from .sampling import sample_frames
from .supervision import Supervision

logger = logging.getLogger(__name__)


@MAPPER_REGISTRY.register()
class ClipMapper:
    """Training clips of videos and of single images, and test videos whose frames load lazily.

    - A dataset dict with ``file_names`` is a video, one with ``file_name`` an image; in training
      an image becomes a clip by a moving window (:class:`PseudoClips`), in tests it stays an image.
    - All randomness of a clip comes from one generator, seeded by numpy's global state, which the
      training loader seeds for each position of its stream.
    - Whether masks are given depends on the data set (key ``source`` of the dataset dict). With box
      supervision ``segmentation`` is never looked at.
    - A training clip with a frame that cannot be used is named and counted, and None is returned,
      for which the loader takes another one.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[ClipAugmentation],
        num_frames: int,
        frame_range: int,
        shuffle: bool,
        replace: bool,
        image_format: str,
        test_size: tuple[int, int],
        supervision: Supervision,
        pseudo_clips: PseudoClips | None,
        image_mapper: InstanceMapper | None,
        max_bad_images: int = 20,
    ):
        """
        Args:
            is_train: for training or inference.
            augmentations: of training clips.
            num_frames, frame_range, shuffle, replace: see :func:`sample_frames`.
            image_format: of the frames, "RGB" or "BGR".
            test_size: shorter side (0 keeps the size) and greatest longer side in inference.
            supervision: "box" or "mask" for each data set.
            pseudo_clips: makes clips of images in training.
            image_mapper: maps images in inference.
            max_bad_images: training stops when more image files than this are bad.
        """
        self.is_train = is_train
        self._augmentations = list(augmentations)
        self._num_frames, self._frame_range = num_frames, frame_range
        self._shuffle, self._replace = shuffle, replace
        self._image_format = image_format
        self._test_size = test_size
        self._supervision = supervision
        self._pseudo_clips = pseudo_clips
        self._image_mapper = image_mapper
        self._bad_images = BadImages(max_bad_images)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        node = cfg.INPUT
        return {
            "is_train": is_train,
            "augmentations": build_clip_augmentations(cfg) if is_train else [],
            "num_frames": node.SAMPLING_FRAME_NUM,
            "frame_range": node.SAMPLING_FRAME_RANGE,
            "shuffle": node.SAMPLING_FRAME_SHUFFLE,
            "replace": node.SAMPLING_FRAME_REPLACE,
            "image_format": node.FORMAT,
            "test_size": (node.MIN_SIZE_TEST, node.MAX_SIZE_TEST),
            "supervision": Supervision.from_config(cfg),
            "pseudo_clips": PseudoClips.from_config(cfg) if is_train else None,
            "image_mapper": None if is_train else InstanceMapper(cfg, False),
            "max_bad_images": cfg.DATALOADER.MAX_BAD_IMAGES,
        }

    def __call__(self, dataset_dict: dict) -> dict | None:
        """
        Args:
            dataset_dict: a video or an image in the format of the data sets.

        Returns:
            In training a clip: ``image`` (T tensors (3, H, W), uint8, of one size), ``instances``
            (T, see :func:`clip_instances`), ``supervision``, ``source``, ``height`` and ``width``
            of the video, ``length``, ``video_id`` or ``image_id``, ``file_names`` and
            ``frame_indices`` of the T frames; None if one of the frames cannot be used.
            In inference the same of all frames, without ground truth, with ``image`` a
            :class:`FrameSequence`; of an image what detectron2 gives.

        Raises:
            TooManyBadImagesError: in training, if too many files were bad.
        """
        is_video = "file_names" in dataset_dict
        if self.is_train:
            return self._map_training(dataset_dict, is_video)
        return self._map_test_video(dataset_dict) if is_video else self._image_mapper(dataset_dict)

    def _map_training(self, record: dict, is_video: bool) -> dict | None:
        generator = np.random.default_rng(np.random.randint(2**31))
        try:
            if is_video:
                return self._map_clip(record, generator)
            return self._map_pseudo_clip(record, generator)
        except _BadFrame as error:
            self._bad_images.add(error.file_name, error.reason)
            return None
        except Exception:
            name = record.get("video_id", record.get("file_name"))
            logger.error("The mapper failed on '%s' (%s).", name, record.get("source"))
            raise

    def _map_clip(self, record: dict, generator: np.random.Generator) -> dict:
        indices = sample_frames(
            len(record["file_names"]),
            self._num_frames,
            self._frame_range,
            self._shuffle,
            generator,
            self._replace,
        )
        names = [record["file_names"][i] for i in indices]
        annotations = [record["annotations"][i] for i in indices]
        size = record["height"], record["width"]
        images = {name: self._read(name, size) for name in dict.fromkeys(names)}
        transforms = draw_transforms(self._augmentations, size, len(indices), generator)
        clip = self._make_clip(record, [images[x] for x in names], annotations, transforms)
        return {**clip, **_about_video(record), "file_names": names, "frame_indices": indices}

    def _map_pseudo_clip(self, record: dict, generator: np.random.Generator) -> dict:
        name = record["file_name"]
        size = (record["height"], record["width"]) if "height" in record else None
        image = self._read(name, size)
        size = image.shape[:2]
        transforms = self._pseudo_clips.draw(size, generator)
        numbered = [{**x, "id": i} for i, x in enumerate(record["annotations"])]
        count = len(transforms)
        clip = self._make_clip(
            {**record, "height": size[0], "width": size[1]},
            [image] * count,
            [numbered] * count,
            transforms,
        )
        return {
            **clip,
            "image_id": record.get("image_id"),
            "length": count,
            "file_names": [name] * count,
            "frame_indices": list(range(count)),
        }

    def _make_clip(
        self,
        record: dict,
        images: list[np.ndarray],
        annotations: list[list[dict]],
        transforms: list[TransformList],
    ) -> dict:
        """What clips of videos and of images have in common."""
        source = record.get("source", "")
        supervision = self._supervision.of(source)
        with_masks = supervision == "mask"
        original = record["height"], record["width"]
        usable = [_usable(frame, *original, with_masks) for frame in annotations]
        frames = [x.apply_image(image) for x, image in zip(transforms, images)]
        return {
            "image": [to_tensor(frame) for frame in frames],
            "instances": clip_instances(usable, transforms, frames[0].shape[:2], with_masks),
            "supervision": supervision,
            "source": source,
            "height": original[0],
            "width": original[1],
        }

    def _map_test_video(self, record: dict) -> dict:
        size = record["height"], record["width"]
        resized = resized_shape(size, *self._test_size)
        names = record["file_names"]
        return {
            "image": FrameSequence(names, size, resized, self._image_format),
            **_about_video(record),
            "source": record.get("source", ""),
            "height": size[0],
            "width": size[1],
            "file_names": list(names),
            "frame_indices": list(range(len(names))),
        }

    def _read(self, file_name: str, size: tuple[int, int] | None) -> np.ndarray:
        try:
            return read_frame(file_name, size, self._image_format)
        except BAD_IMAGE_ERRORS as error:
            raise _BadFrame(file_name, error) from error


class _BadFrame(Exception):
    """A file that cannot be used, and what was raised for it."""

    def __init__(self, file_name: str, reason: Exception):
        super().__init__(file_name)
        self.file_name, self.reason = file_name, reason


def _usable(annotations: list[dict], height: int, width: int, with_masks: bool) -> list[dict]:
    # What is left out here was named when the data set was checked.
    objects = [x for x in annotations if not x.get("iscrowd", 0)]
    return check_frame(objects, height, width, with_masks)[0]


def _about_video(record: dict) -> dict:
    return {"video_id": record.get("video_id"), "length": len(record["file_names"])}
