"""The video model: Mask2Former-VIS that trains from boxes (or, for comparison, from masks)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from torch import nn

from .clips import (
    TargetSettings,
    by_length,
    clip_targets,
    count_masked,
    frames_of,
    is_image,
    pad_frames,
)
from .criterion import VideoSetCriterion
from .heads import MaskFormerHead
from .inference import (
    Selection,
    chunks,
    encode_masks,
    image_instances,
    resize_masks,
    select,
    unique_queries,
    windows,
)
from .state_dict import adapt_state_dict
from .tracks import EncodedClip, encode_clip
from .windows import TrackStitcher, Window


@META_ARCH_REGISTRY.register()
class MaskFreeVIS(nn.Module):
    """Masked-attention video transformer, arXiv 2112.10764, trained as in arXiv 2303.15904.

    Shapes: B clips of T frames, Q queries, K classes.

    Training items are clips or single images, see :mod:`msr_d2.data.video`; each says by
    ``supervision`` whether boxes or masks teach it. Clips of different lengths may share a batch:
    each length is a forward pass of its own, and the losses are averaged over the clips.

    In inference an item with a sequence of frames is a video and an item with one tensor an image.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: MaskFormerHead,
        criterion: VideoSetCriterion,
        target_settings: TargetSettings,
        size_divisibility: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        top_k: int = 10,
        top_k_image: int = 100,
        chunk_frames: int = 0,
        window_above: int = 0,
        window_frames: int = 60,
        window_overlap: int = 10,
        window_min_score: float = 0.3,
    ):
        """
        Args:
            backbone: of detectron2, with strides 4 to 32.
            sem_seg_head: pixel decoder and transformer decoder.
            criterion: turns predictions and targets into weighted losses.
            target_settings: how targets are made from boxes and frames.
            size_divisibility: frames are padded to multiples of it.
            pixel_mean, pixel_std: per channel, in the order of the frames.
            top_k, top_k_image: number of tracks of a video, of instances in an image.
            chunk_frames: frames that are processed at once in inference; 0 for all.
            window_above: videos longer than this are processed in windows; 0 for never.
            window_frames, window_overlap: frames of a window, and how many two neighbours share.
            window_min_score: least association score to join tracks of two windows.

        Raises:
            ValueError: for numbers that are not positive, or windows that cannot overlap.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.target_settings = target_settings
        self.size_divisibility = size_divisibility
        self.top_k, self.top_k_image = top_k, top_k_image
        self.chunk_frames = chunk_frames
        self.window_above = window_above
        self.window_frames, self.window_overlap = window_frames, window_overlap
        self.window_min_score = window_min_score
        _check_inference(top_k, chunk_frames)
        if window_above:  # both raise for bad settings
            windows(window_above + 1, window_frames, window_overlap)
            TrackStitcher(window_min_score)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self._register_load_state_dict_pre_hook(adapt_state_dict)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        divisibility = cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY
        test = cfg.MODEL.MASK_FREE.TEST
        return {
            "backbone": backbone,
            "sem_seg_head": MaskFormerHead(cfg, backbone.output_shape()),
            "criterion": VideoSetCriterion(cfg),
            "target_settings": TargetSettings.from_config(cfg),
            "size_divisibility": math.lcm(divisibility or 1, backbone.size_divisibility or 1),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "top_k": test.TOP_K,
            "top_k_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "chunk_frames": test.CHUNK_FRAMES,
            "window_above": test.WINDOW_ABOVE,
            "window_frames": test.WINDOW_FRAMES,
            "window_overlap": test.WINDOW_OVERLAP,
            "window_min_score": test.WINDOW_MIN_SCORE,
        }

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """
        Args:
            batched_inputs: clips or images of a mapper.

        Returns:
            In training, weighted scalar losses. In inference, for each video ``scores`` (n,),
            ``labels`` (n,) and ``masks``, n lists of T compressed run lengths (None where the
            object is not seen) at the video's original size; for each image ``instances``.
        """
        if self.training:
            return self._losses(batched_inputs)
        return [self._predict(item) for item in batched_inputs]

    def _losses(self, items: list[dict]) -> dict[str, torch.Tensor]:
        total: dict[str, torch.Tensor] = {}
        num_masks = self.criterion.num_masks(count_masked(items))
        for group in by_length(items):
            share = len(group) / len(items)
            for name, loss in self._losses_of_equal_length(group, num_masks * share).items():
                total[name] = total.get(name, 0.0) + share * loss
        return total

    def _losses_of_equal_length(
        self, items: list[dict], num_masks: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        num_frames = len(frames_of(items[0]))
        frames = [frame.to(self.device) for item in items for frame in frames_of(item)]
        features = self.backbone(self._normalized(frames))
        outputs = self.sem_seg_head(features, num_frames)
        padded = pad_frames(frames, self.size_divisibility).unflatten(0, (len(items), num_frames))
        targets = [clip_targets(x, y, self.target_settings) for x, y in zip(items, padded)]
        return self.criterion(outputs, targets, num_masks)

    def _normalized(self, frames: Sequence[torch.Tensor]) -> torch.Tensor:
        """Frames (3, H, W) as network input (F, 3, H', W'); the padding is 0 after scaling."""
        scaled = [(x.to(self.device) - self.pixel_mean) / self.pixel_std for x in frames]
        return pad_frames(scaled, self.size_divisibility)

    @torch.no_grad()
    def _predict(self, item: dict) -> dict:
        if is_image(item):
            return {"instances": self._image(item)}
        frames = item["image"]
        if self.window_above and len(frames) > self.window_above:
            return self._long_video(item)
        return self._video(item)

    def _video(self, item: dict) -> dict:
        clip = self._encode(item["image"])
        selection = select(clip.class_logits, self.top_k)
        unique, places = unique_queries(selection.queries)
        tracks = self._tracks(clip, unique, _output_size(item, clip))
        return {
            "scores": selection.scores.cpu(),
            "labels": selection.labels.cpu(),
            "masks": [tracks[place] for place in places],
        }

    def _long_video(self, item: dict) -> dict:
        """Window by window; what is kept of a window are run lengths."""
        frames = item["image"]
        stitcher = TrackStitcher(self.window_min_score, self.top_k, self.window_frames)
        for window in windows(len(frames), self.window_frames, self.window_overlap):
            clip = self._encode(frames[window])
            # Twice as many as in the end, so that an object that is weak in one window has no hole.
            queries = select(clip.class_logits, 2 * self.top_k).queries.unique()
            probabilities = clip.class_logits.float().softmax(-1)[queries, :-1]
            tracks = self._tracks(clip, queries, _output_size(item, clip))
            stitcher.add(
                Window(window.start, probabilities.cpu(), clip.mask_embed[queries].cpu(), tracks)
            )
        return stitcher.result(self.top_k)

    def _image(self, item: dict):
        clip = self._encode(frames_of(item))
        size = _output_size(item, clip)
        selection: Selection = select(clip.class_logits, self.top_k_image)
        unique, places = unique_queries(selection.queries)
        (logits,) = self._mask_logits(clip, unique, size)
        return image_instances(selection, logits[places], size)

    def _encode(self, frames: Sequence[torch.Tensor]) -> EncodedClip:
        slices = chunks(len(frames), self.chunk_frames)
        batches = (self._normalized(frames[x]) for x in slices)
        image_size = tuple(frames[0].shape[-2:])
        return encode_clip(batches, self.backbone, self.sem_seg_head, image_size)

    def _tracks(
        self, clip: EncodedClip, queries: torch.Tensor, size: tuple[int, int]
    ) -> list[list[dict | None]]:
        """Run lengths of the masks of some queries (n,): n lists of T."""
        tracks: list[list[dict | None]] = [[] for _ in range(len(queries))]
        for logits in self._mask_logits(clip, queries, size):
            for track, rle in zip(tracks, encode_masks(logits > 0)):
                track.append(rle)
        return tracks

    def _mask_logits(
        self, clip: EncodedClip, queries: torch.Tensor, size: tuple[int, int]
    ) -> Iterator[torch.Tensor]:
        """(n, H, W) logits of some queries at the output size, frame by frame."""
        embed = clip.mask_embed[queries]
        for features in clip.mask_features:
            for logits in torch.einsum("qc,tchw->tqhw", embed, features):
                yield resize_masks(logits, clip.padded_size, clip.image_size, size)


def _check_inference(top_k: int, chunk_frames: int) -> None:
    if top_k < 1:
        raise ValueError(f"MODEL.MASK_FREE.TEST.TOP_K is {top_k}; it must be at least 1")
    if chunk_frames < 0:
        raise ValueError(
            f"MODEL.MASK_FREE.TEST.CHUNK_FRAMES is {chunk_frames}; it must be at least 1, or 0 for "
            "all frames at once"
        )


def _output_size(item: dict, clip: EncodedClip) -> tuple[int, int]:
    """Original (height, width) of an item; the network's input size where it is not given."""
    height, width = clip.image_size
    return int(item.get("height", height)), int(item.get("width", width))
