"""Tracks of a video, drawn frame by frame in a colour that stays with the track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from .canvas import Drawable, draw_objects, to_rgb
from .overlay import class_name
from .style import Color, track_color


@dataclass(frozen=True)
class Track:
    """One object throughout a video of T frames.

    Attributes:
        masks: T run lengths of the masks (as pycocotools has them, compressed or not) at the size
            of the frames; None where the object is not seen.
        text: name of the class, and what else the label says; empty for no label.
        color: of mask, outline and label in all frames.
    """

    masks: Sequence[dict | None]
    text: str
    color: Color


def tracks_to_draw(
    output: dict,
    class_names: Sequence[str] | None = None,
    *,
    score_threshold: float = 0.4,
    numbered: bool = True,
) -> list[Track]:
    """The tracks of a model's output that reach a score, the best first.

    The number and colour of a track are those of its place in the whole output, so they do not
    depend on the threshold.

    Args:
        output: ``scores`` (N,), ``labels`` (N,) contiguous class indices and ``masks``, N lists of
            T run lengths or None.
        class_names: name of each class index.
        score_threshold: lowest score that is kept; NaN never is.
        numbered: put the place of the track in `output`, from 0, before its name.
    """
    scores = np.array([float(score) for score in output["scores"]])
    order = np.argsort(-scores, kind="stable")
    tracks = []
    for index in order[scores[order] >= score_threshold]:
        name = class_name(class_names, int(output["labels"][index]))
        text = f"{f'#{index} ' * numbered}{name} {scores[index]:.2f}"
        tracks.append(Track(output["masks"][index], text, track_color(int(index))))
    return tracks


def draw_tracks(
    frame_rgb: np.ndarray,
    tracks: Sequence[Track],
    frame_index: int,
    *,
    alpha: float = 0.4,
    draw_boxes: bool = False,
    enlarge: bool = False,
) -> np.ndarray:
    """Draw the masks, outlines and labels of the tracks that are seen in one frame.

    For frame after frame use :class:`TrackPainter`, whose labels do not jump.

    Args:
        frame_rgb: (H, W, 3) RGB or (H, W) gray, values in [0, 255].
        tracks: the most important first.
        frame_index: which of a track's masks belong to the frame.
        alpha: opacity of the masks in [0, 1].
        draw_boxes: whether to draw the boxes around the masks.
        enlarge: whether small frames are made larger for the sake of the labels.

    Returns:
        (H, W, 3) uint8 RGB; larger for small frames that are to be enlarged.

    Raises:
        ValueError: a mask of another size than the frame, or a track without that frame.
    """
    painter = TrackPainter(tracks, alpha=alpha, draw_boxes=draw_boxes, enlarge=enlarge)
    return painter.draw(frame_rgb, frame_index)


class TrackPainter:
    """Draws the frames of one video, one after another.

    A label stays where it was beside its object as long as that is about as good as the best place.
    """

    def __init__(self, tracks: Sequence[Track], **style: Any):
        """
        Args:
            tracks: see :func:`draw_tracks`.
            style: alpha, draw_boxes, enlarge; see :func:`draw_tracks`.
        """
        self._tracks = tracks
        self._style = {"alpha": 0.4, "draw_boxes": False, "enlarge": False, **style}
        self._label_offsets: dict[int, np.ndarray] = {}

    def draw(self, frame_rgb: np.ndarray, frame_index: int) -> np.ndarray:
        """Draw the tracks on one frame; arguments, result and errors of :func:`draw_tracks`."""
        image = to_rgb(frame_rgb)
        objects = {}
        for number, track in enumerate(self._tracks):
            item = drawable(track, frame_index, image.shape[:2])
            if item is not None:
                item.label_offset = self._label_offsets.get(number)
                objects[number] = item
        picture = draw_objects(image, list(objects.values()), [], **self._style)
        self._label_offsets = {n: x.label_offset for n, x in objects.items() if x.text}
        return picture


def drawable(track: Track, frame_index: int, size: tuple[int, int]) -> Drawable | None:
    """A track in one frame, ready to draw; None if it is not seen there.

    Args:
        track: its masks are decoded for this frame only.
        frame_index: from 0.
        size: (height, width) of the frame in pixels.

    Raises:
        ValueError: a mask of another size, or a track that is shorter than that.
    """
    if not 0 <= frame_index < len(track.masks):
        raise ValueError(f"a track of {len(track.masks)} frames has no frame {frame_index}")
    mask = decode_mask(track.masks[frame_index], size)
    if mask is None:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)
    return Drawable(box, mask, track.color, [track.text] if track.text else [])


def decode_mask(rle: dict | None, size: tuple[int, int]) -> np.ndarray | None:
    """(H, W) boolean mask from run lengths; None for None and for a mask without a pixel.

    Raises:
        ValueError: the mask is not of `size`.
    """
    if rle is None:
        return None
    if tuple(rle["size"]) != tuple(size):
        raise ValueError(
            f"a mask is {tuple(rle['size'])} but its frame {tuple(size)} (height, width): the "
            "tracks belong to another video, or to one of another size"
        )
    if isinstance(rle["counts"], list):
        rle = mask_util.frPyObjects(rle, *size)
    mask = mask_util.decode(rle).astype(bool)
    return mask if mask.any() else None
