"""Long videos in windows: tracks of overlapping windows are joined by mask and query.

Of a window only run lengths, class distributions and one vector for each track are kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

# Compressed run lengths of one object in each frame; None where it is not seen.
Masks = Sequence["dict | None"]


@dataclass(frozen=True)
class Window:
    """The n >= 1 tracks of a window of T frames.

    Attributes:
        start: its first frame in the video.
        probabilities: (n, K) of the classes, without "no object".
        embeddings: (n, C) of the queries.
        masks: n times T run lengths or None, all of one size.
    """

    start: int
    probabilities: torch.Tensor
    embeddings: torch.Tensor
    masks: Sequence[Masks]


@dataclass
class _Track:
    """A track so far: masks from its first frame on, and what is known from its pieces."""

    start: int
    masks: list[dict | None]
    weighted: torch.Tensor  # (K,) sum over pieces of weight times distribution
    weight: float
    embedding: torch.Tensor  # (C,) of the last piece
    last_seen: int  # frame

    def best_score(self) -> float:
        """Score of its best class."""
        return float((self.weighted / self.weight).max())

    def between(self, start: int, stop: int) -> list[dict | None]:
        """Masks of some frames; None before the track begins and after it ends."""
        inside = self.masks[max(start - self.start, 0) : max(stop - self.start, 0)]
        before = min(max(self.start - start, 0), stop - start)
        return [None] * before + inside + [None] * (stop - start - before - len(inside))


class TrackStitcher:
    """Takes windows one after the other and joins their tracks to tracks of the whole video.

    In frames that two windows share, a joined track has the masks of the earlier window in the
    first half and those of the later one in the second: a frame in the middle of a window has
    neighbours on both sides. The class distribution of a track is the mean over its pieces,
    weighted by the number of frames in which each is seen. A single window stays as it is.

    What is kept does not grow with the video, but for the run lengths of the result: a track that
    has not been seen for `max_absence` frames is over, and of those only the best are held.
    """

    def __init__(self, min_score: float = 0.3, max_tracks: int = 100, max_absence: int = 60):
        """
        Args:
            min_score: least association score in [0, 1] to join two tracks.
            max_tracks: tracks that are over and still held; the most that `result` may ask for.
            max_absence: frames after which an object that comes back is another one.

        Raises:
            ValueError: for a score outside [0, 1].
        """
        if not 0 <= min_score <= 1:
            raise ValueError(
                f"MODEL.MASK_FREE.TEST.WINDOW_MIN_SCORE is {min_score}; it must be in [0, 1]"
            )
        self.min_score, self.max_tracks, self.max_absence = min_score, max_tracks, max_absence
        self._tracks: list[_Track] = []
        self._over: list[_Track] = []
        self._length = 0

    def add(self, window: Window) -> None:
        """Append a window.

        Raises:
            ValueError: if it starts before frame 0 or leaves a gap after the frames so far.
        """
        if not 0 <= window.start <= self._length:
            raise ValueError(
                f"a window starts at frame {window.start}, but {self._length} frames are done: "
                "windows must come in order and without gaps"
            )
        continued = self._continued(window)
        for new, masks in enumerate(window.masks):
            if new in continued:
                self._extend(self._tracks[continued[new]], window, new, list(masks))
            elif window.start == 0 or any(masks):
                self._begin(window, new, list(masks))
        self._length = window.start + len(window.masks[0])
        self._retire()

    def result(self, top_k: int) -> dict:
        """The `top_k` best pairs of track and class, best first.

        Returns:
            ``scores`` (n,), ``labels`` (n,) and ``masks``: n lists of run lengths or None, one for
            each frame of the video.
        """
        tracks = self._over + self._tracks
        if not tracks:
            return {"scores": torch.zeros(0), "labels": torch.zeros(0).long(), "masks": []}
        mean = torch.stack([track.weighted / track.weight for track in tracks])
        scores, index = mean.flatten().topk(min(top_k, mean.numel()))
        rows = torch.div(index, mean.shape[1], rounding_mode="floor").tolist()
        masks = [tracks[row].between(0, self._length) for row in rows]
        return {"scores": scores, "labels": index % mean.shape[1], "masks": masks}

    def _retire(self) -> None:
        """Set tracks aside that are over. The best pairs belong to the tracks of best scores."""
        oldest = self._length - self.max_absence
        over = [track for track in self._tracks if track.last_seen < oldest]
        self._tracks = [track for track in self._tracks if track.last_seen >= oldest]
        self._over = heapq.nlargest(self.max_tracks, self._over + over, key=_Track.best_score)

    def _continued(self, window: Window) -> dict[int, int]:
        """Tracks so far that go on in the window, by the row there."""
        if not self._tracks:
            return {}
        shared = self._length - window.start
        old = [track.between(window.start, self._length) for track in self._tracks]
        scores = association_scores(
            old,
            [masks[:shared] for masks in window.masks],
            torch.stack([track.embedding for track in self._tracks]),
            window.embeddings,
        )
        return {new: track for track, new in associate(scores, self.min_score)}

    def _begin(self, window: Window, row: int, masks: list[dict | None]) -> None:
        weight, weighted = _weights(window, row)
        seen = _last_seen(masks, window.start)
        embedding = window.embeddings[row]
        self._tracks.append(_Track(window.start, masks, weighted, weight, embedding, seen))

    def _extend(self, track: _Track, window: Window, row: int, masks: list[dict | None]) -> None:
        weight, weighted = _weights(window, row)
        switch = (self._length - window.start) // 2
        track.masks = track.between(track.start, window.start + switch) + masks[switch:]
        track.weighted = track.weighted + weighted
        track.weight += weight
        track.embedding = window.embeddings[row]
        track.last_seen = _last_seen(track.masks, track.start)


def _weights(window: Window, row: int) -> tuple[float, torch.Tensor]:
    """Frames in which a piece is seen, at least 1, and that times its class distribution."""
    weight = float(max(sum(mask is not None for mask in window.masks[row]), 1))
    return weight, weight * window.probabilities[row].float()


def _last_seen(masks: Masks, start: int) -> int:
    """Last frame with a mask; the first frame where there is none."""
    places = [place for place, mask in enumerate(masks) if mask is not None]
    return start + max(places, default=0)


def association_scores(
    old: Sequence[Masks],
    new: Sequence[Masks],
    old_embeddings: torch.Tensor,
    new_embeddings: torch.Tensor,
) -> np.ndarray:
    """How well tracks fit together, from their masks in shared frames and their queries.

    The mean of the IoU of both mask tubes and of the cosine similarity of the queries, clipped to
    [0, 1]. Tracks that are seen in the shared frames, but not at the same place, get 0. Two that
    are both not seen there may be one object that left and comes back: they have no IoU, so their
    score is at most a half.

    Args:
        old, new: m and n tracks in the same frames.
        old_embeddings, new_embeddings: (m, C) and (n, C).

    Returns:
        (m, n) in [0, 1].
    """
    iou = tube_iou(old, new)
    hidden = np.outer(_hidden(old), _hidden(new))
    similarity = F.cosine_similarity(
        old_embeddings.float()[:, None], new_embeddings.float()[None], dim=-1
    )
    score = (iou + similarity.clamp(0, 1).cpu().numpy()) / 2
    return np.where((iou > 0) | hidden, score, 0.0)


def tube_iou(old: Sequence[Masks], new: Sequence[Masks]) -> np.ndarray:
    """Intersection over union of tracks, both summed over the frames; 0 for two empty ones.

    Args:
        old, new: m and n tracks in the same frames.

    Returns:
        (m, n).
    """
    overlap = np.zeros((len(old), len(new)))
    areas = np.zeros((len(old), 1)), np.zeros((1, len(new)))
    for old_masks, new_masks in zip(zip(*old), zip(*new)):
        rows, first, first_areas = _seen(old_masks)
        columns, second, second_areas = _seen(new_masks)
        areas[0][rows, 0] += first_areas
        areas[1][0, columns] += second_areas
        if first and second:
            iou = np.asarray(mask_util.iou(first, second, [0] * len(second)))
            total = first_areas[:, None] + second_areas[None]
            overlap[np.ix_(rows, columns)] += total * iou / (1 + iou)
    union = areas[0] + areas[1] - overlap
    return overlap / np.maximum(union, 1)


def associate(scores: np.ndarray, min_score: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the assignment with the largest total score.

    Args:
        scores: (m, n) in [0, 1].
        min_score: lower scores, and 0, are no candidates.
    """
    candidates = (scores > 0) & (scores >= min_score)
    rows, columns = linear_sum_assignment(np.where(candidates, scores, 0.0), maximize=True)
    pairs = zip(rows.tolist(), columns.tolist())
    return [(row, column) for row, column in pairs if candidates[row, column]]


def _seen(masks: Masks) -> tuple[list[int], list[dict], np.ndarray]:
    """Indices, run lengths and areas of the masks that are not None."""
    index = [i for i, mask in enumerate(masks) if mask is not None]
    rles = [mask for mask in masks if mask is not None]
    areas = np.asarray(mask_util.area(rles), dtype=float) if rles else np.zeros(0)
    return index, rles, areas


def _hidden(tracks: Sequence[Masks]) -> np.ndarray:
    return np.array([all(mask is None for mask in masks) for masks in tracks], dtype=bool)
