"""Drawing surface: a picture enlarged until text is readable on it, and the paint for instances.

detectron2's `Visualizer` draws through matplotlib, which knows the size of a text only after it was
rendered, drops masks of one or two pixels and centres labels on the corner of a box, half outside
of small pictures. Labels with three numbers need the sizes first, hence Pillow here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from .labels import draw_label, fit_text, place_labels, wrap_parts
from .style import Color, load_font

_SMALL = 600  # pictures with a longer side below this are enlarged by a whole factor
_MIN_WIDTH, _MIN_HEIGHT = 320, 120  # narrower pictures get a margin, so that labels have a place
_BACKGROUND = (32, 32, 32)


@dataclass
class Drawable:
    """One object to draw, in pixels of the original picture.

    Attributes:
        box: (4,) float array, (x0, y0, x1, y1).
        mask: boolean array (H, W), or None.
        color: of mask, outline, box and label.
        text: pieces of the label; empty for no label.
        label_offset: (2,) x and y from the corner of the box to that of its label: where it should
            be, if known; set to where it is when it has been drawn.
    """

    box: np.ndarray
    mask: np.ndarray | None
    color: Color
    text: list[str]
    label_offset: np.ndarray | None = None


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A gray or RGB picture as (H, W, 3) uint8.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3), values in [0, 255] of any number type.

    Raises:
        ValueError: another shape, or no pixels.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"the picture has shape {image.shape}: expected (H, W), (H, W, 1) or (H, W, 3) with at "
            "least one pixel"
        )
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


def draw_objects(
    image: np.ndarray,
    objects: list[Drawable],
    legend: list[str],
    *,
    alpha: float,
    draw_boxes: bool,
    enlarge: bool = True,
) -> np.ndarray:
    """Masks, boxes and labels over a picture, and a legend below it.

    Args:
        image: (H, W, 3) uint8 RGB.
        objects: the most important first; their labels choose their places in this order.
        legend: pieces of the legend; empty for none.
        alpha: opacity of the masks in [0, 1].
        draw_boxes: whether to draw the outlines of the boxes.
        enlarge: whether small pictures are made larger; else their text is made smaller.

    Returns:
        (H', W', 3) uint8 RGB. H' and W' are H and W for large pictures without a legend, and a
        whole multiple for small ones.
    """
    scale = max(1, -(-_SMALL // max(image.shape[:2]))) if enlarge else 1
    size = (image.shape[1] * scale, image.shape[0] * scale)
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image.copy()
    line_width = max(1, round(font_size_for(canvas) / 8))
    by_size = sorted(objects, key=_visible_area, reverse=True)
    for item in by_size:
        if item.mask is not None:
            _paint_mask(canvas, item.mask, item.color, scale, alpha, line_width)
    picture = Image.fromarray(_with_margin(canvas) if enlarge else canvas)
    for item in by_size if draw_boxes else ():
        _paint_box(picture, item.box * scale, item.color, line_width, canvas.shape)
    _paint_labels(picture, objects, scale)
    if not legend:
        return np.array(picture)
    strip = text_strip(legend, picture.width, font_size_for(canvas))
    return np.concatenate([np.asarray(picture), strip])


def font_size_for(canvas: np.ndarray) -> int:
    """Size of label text in pixels: 8 on a tiny canvas, 13 on a small one, more on large ones."""
    smallest = min(13, max(8, max(canvas.shape[:2]) // 24))
    return max(smallest, round(0.018 * float(np.sqrt(canvas.shape[0] * canvas.shape[1]))))


def text_strip(parts: list[str], width: int, font_size: int) -> np.ndarray:
    """Light text on a dark strip, (H, width, 3) uint8; `parts` are never broken inside."""
    margin = font_size // 2
    lines = wrap_parts(parts, font_size, width - 2 * margin)
    line_height = sum(load_font(font_size).getmetrics())
    strip = Image.new("RGB", (width, line_height * len(lines) + margin), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        top = margin // 2 + number * line_height
        draw.text((margin, top), line, font=load_font(font_size), fill=(235, 235, 235))
    return np.asarray(strip)


def _visible_area(item: Drawable) -> float:
    if item.mask is not None:
        return float(item.mask.sum())
    return float((item.box[2:] - item.box[:2]).prod())


def _with_margin(canvas: np.ndarray) -> np.ndarray:
    height, width = max(canvas.shape[0], _MIN_HEIGHT), max(canvas.shape[1], _MIN_WIDTH)
    if (height, width) == canvas.shape[:2]:
        return canvas
    larger = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
    larger[: canvas.shape[0], : canvas.shape[1]] = canvas
    return larger


def _paint_mask(
    canvas: np.ndarray, mask: np.ndarray, color: Color, scale: int, alpha: float, line_width: int
) -> None:
    """Blend a mask into the canvas and draw its outline, in place; works on its bounding box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return
    top, left = rows[0], columns[0]
    crop = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    crop = np.kron(crop, np.ones((scale, scale), dtype=np.uint8)) if scale > 1 else crop
    top, left = top * scale, left * scale
    region = canvas[top : top + crop.shape[0], left : left + crop.shape[1]]
    inside = crop.astype(bool)
    tinted = cv2.addWeighted(region, 1 - alpha, np.full_like(region, color), alpha, 0)
    np.copyto(region, tinted, where=inside[:, :, None])
    outlines = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))[-2]
    cv2.drawContours(canvas, outlines, -1, [int(value) for value in color], line_width)


def _paint_box(
    picture: Image.Image, box: np.ndarray, color: Color, line_width: int, shape: tuple
) -> None:
    x0, y0, x1, y1 = box.clip(0, [shape[1] - 1, shape[0] - 1] * 2)
    ImageDraw.Draw(picture).rectangle(
        (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=line_width
    )


def _paint_labels(picture: Image.Image, objects: list[Drawable], scale: int) -> None:
    labelled = [item for item in objects if item.text]
    if not labelled:
        return
    font_size = font_size_for(np.asarray(picture))
    blocks = [fit_text(item.text, font_size, picture.width) for item in labelled]
    limits = np.array([picture.width - 1, picture.height - 1] * 2)
    boxes = np.array([item.box * scale for item in labelled]).clip(0, limits)
    sizes = np.array([(block.width, block.height) for block in blocks])
    wanted = [
        None if item.label_offset is None else box[:2] + item.label_offset
        for item, box in zip(labelled, boxes)
    ]
    corners = place_labels(boxes, sizes, (picture.height, picture.width), wanted)
    for item, block, corner, box in zip(labelled, blocks, corners, boxes):
        item.label_offset = corner - box[:2]
        draw_label(picture, block, corner, box, item.color)
