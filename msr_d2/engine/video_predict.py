"""A trained video model as a function from frames to tracks."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ..evaluation.ytvis_evaluation import encode_track
from ..visualization.lazy_frames import LazyFrames
from .predict import load_model, size_for_test

logger = logging.getLogger(__name__)

# Meta-architectures that take videos.
VIDEO_ARCHITECTURES = ("MaskFreeVIS",)
LONG_VIDEO = 120  # frames; longer videos are worked through in windows, unless the config says so


def is_video_model(cfg: CfgNode) -> bool:
    """Whether the model of a config follows objects through videos."""
    return cfg.MODEL.META_ARCHITECTURE in VIDEO_ARCHITECTURES


def with_windows(cfg: CfgNode) -> CfgNode:
    """The config with windows for long videos, where it has none, so that memory is bounded.

    Returns:
        the config itself, or where MODEL.MASK_FREE.TEST.WINDOW_ABOVE is 0 a copy in which it is
        `LONG_VIDEO`.
    """
    if cfg.MODEL.MASK_FREE.TEST.WINDOW_ABOVE:
        return cfg
    cfg = cfg.clone()
    cfg.MODEL.MASK_FREE.TEST.WINDOW_ABOVE = LONG_VIDEO
    logger.info(
        "Videos of more than %d frames are worked through in windows of %d, for the memory. "
        "MODEL.MASK_FREE.TEST.WINDOW_ABOVE sets this number; with 1000000000 every video is "
        "taken as a whole.",
        LONG_VIDEO,
        cfg.MODEL.MASK_FREE.TEST.WINDOW_FRAMES,
    )
    return cfg


class VideoPredictor:
    """The counterpart of :class:`msr_d2.engine.predict.Predictor` for videos.

    Frames are read and resized when the model asks for them, so a long video needs no more memory
    than the model does; that is bounded with windows, see :func:`with_windows`. Weights that leave
    a part of the model random are refused.
    """

    def __init__(self, cfg: CfgNode, *, allow_random_weights: bool = False):
        """
        Args:
            cfg: with MODEL.WEIGHTS, as from :func:`msr_d2.engine.load_cfg`.
            allow_random_weights: without MODEL.WEIGHTS use the initial values, whose predictions
                mean nothing, instead of refusing.

        Raises:
            ValueError: for a model of single images, without weights, for weights of another
                model, with test-time augmentation, or for an unknown INPUT.FORMAT.
        """
        if not is_video_model(cfg):
            raise ValueError(
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r} finds objects in single "
                f"images: a video needs one of {VIDEO_ARCHITECTURES}"
            )
        if cfg.TEST.AUG.ENABLED:
            raise ValueError("there is no test-time augmentation of videos: TEST.AUG.ENABLED False")
        self.cfg = cfg.clone()
        self.model = load_model(self.cfg, allow_random_weights)
        self._resize = size_for_test(self.cfg)

    def __call__(self, frames: Sequence[np.ndarray]) -> dict:
        """Follow the objects of one video.

        Args:
            frames: T frames (H, W, 3), uint8 RGB, all of one size; any sequence with ``len`` and
                indices, of which each is used about once.

        Returns:
            ``scores``: N floats, descending; ``labels``: N class indices from 0; ``masks``: N
            lists of T compressed run lengths of size (H, W), None where the object is not seen.
        """
        if len(frames) == 0:
            return {"scores": [], "labels": [], "masks": []}
        with torch.no_grad():
            (output,) = self.model([self.model_input(frames)])
        scores = [float(score) for score in output["scores"]]
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return {
            "scores": [scores[index] for index in order],
            "labels": [int(output["labels"][index]) for index in order],
            "masks": [encode_track(output["masks"][index]) for index in order],
        }

    def model_input(self, frames: Sequence[np.ndarray]) -> dict:
        """The item that the model takes for a video; loads the first frame to know the size."""
        first = frames[0]
        height, width = first.shape[:2]
        transform = self._resize.get_transform(first)
        return {
            "image": ModelFrames(frames, transform, self.cfg.INPUT.FORMAT),
            "height": height,
            "width": width,
            "length": len(frames),
            "frame_indices": list(range(len(frames))),
            "video_id": 1,
        }


class ModelFrames(LazyFrames):
    """Frames as the model takes them: resized tensors (3, H', W'), uint8, made on access."""

    def __init__(self, frames: Sequence[np.ndarray], transform: T.Transform, image_format: str):
        """
        Args:
            frames: (H, W, 3) uint8 RGB.
            transform: resizes one of them.
            image_format: channels of the tensors, "RGB" or "BGR".
        """
        self._frames = frames
        self._transform = transform
        self._image_format = image_format

    def __len__(self) -> int:
        return len(self._frames)

    def load(self, index: int) -> torch.Tensor:
        """Load and resize one frame."""
        frame = self._frames[index]
        if self._image_format == "BGR":
            frame = frame[:, :, ::-1]
        frame = self._transform.apply_image(np.ascontiguousarray(frame))
        return torch.as_tensor(np.ascontiguousarray(frame.transpose(2, 0, 1)))
