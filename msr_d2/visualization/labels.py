"""Where labels go: text blocks with a known size, placed near their boxes without overlap.

Shape shorthand: N boxes with one label each, M candidate positions of one label, P labels that
have their place already. Boxes are (x0, y0, x1, y1) in pixels of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .style import Color, load_font, text_color

# Price of a place: two labels on top of each other cost more than any distance; hiding an object
# costs a little; the distance is measured in diagonals of the canvas.
_COST_LABEL, _COST_OBJECT, _COST_DISTANCE, _COST_ORDER = 100.0, 0.25, 4.0, 0.01
_COST_MOVE = 0.5  # of any other place than the one that is wanted
_PADDING = 2  # pixels between a text and the edge of its block
_SMALLEST_FONT = 8


@dataclass
class TextBlock:
    """Lines of text that fit a canvas, with the font that makes them fit.

    Attributes:
        lines: the lines, already shortened.
        font_size: in pixels.
        width: of the block, padding included, in pixels.
        height: of the block, padding included, in pixels.
    """

    lines: list[str]
    font_size: int
    width: int
    height: int


def fit_text(
    parts: list[str], font_size: int, max_width: int, one_line_share: float = 0.4
) -> TextBlock:
    """Lay out a label: on one line where it is short, on two where it would take much of the width.

    Args:
        parts: pieces joined by " | " on a line; the first piece stays alone on the first of two
            lines.
        font_size: wanted size in pixels; smaller when `max_width` demands it.
        max_width: no block is wider; the last means is an ellipsis.
        one_line_share: share of `max_width` above which a second line is started.
    """
    one_line = " | ".join(parts)
    lines = [one_line]
    if len(parts) > 1 and _text_width(one_line, font_size) > one_line_share * max_width:
        lines = [parts[0], " | ".join(parts[1:])]
    room = max(1, max_width - 2 * _PADDING)
    while font_size > _SMALLEST_FONT and max(_text_width(x, font_size) for x in lines) > room:
        font_size -= 1
    lines = [_shorten(line, font_size, room) for line in lines]
    width = max(_text_width(line, font_size) for line in lines) + 2 * _PADDING
    return TextBlock(lines, font_size, width, _line_height(font_size) * len(lines) + 2 * _PADDING)


def place_labels(
    boxes: np.ndarray,
    sizes: np.ndarray,
    canvas_size: tuple[int, int],
    wanted: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """Choose a place for each label, first come first served.

    A label goes to the cheapest of the corners of its box and a grid over the whole canvas, so it
    covers no earlier label as long as a free place exists.

    Args:
        boxes: (N, 4) float array.
        sizes: (N, 2) widths and heights of the labels, not larger than the canvas.
        canvas_size: (height, width) in pixels.
        wanted: left and top edge that a label should have, as in the frame before, or None; a label
            leaves it only where another place is clearly better.

    Returns:
        (N, 2) int array, the left and top edge of each label; every label is inside the canvas.
    """
    placed = np.zeros((0, 4))
    for box, size, corner in zip(boxes, sizes, wanted or [None] * len(boxes)):
        candidates = _candidates(box, size, canvas_size)
        moved = np.zeros(len(candidates))
        if corner is not None:
            room = np.array(canvas_size[::-1]) - size
            corner = np.rint(corner).clip(min=0, max=room)
            candidates = np.concatenate([candidates, [[*corner, *(corner + size)]]])
            moved = np.append(np.ones(len(moved)), 0)
        distance = _gap(candidates, box) / np.hypot(*canvas_size)
        cost = (
            _COST_LABEL * _covered_share(candidates, placed)
            + _COST_OBJECT * _hidden_share(candidates, boxes)
            + _COST_DISTANCE * distance
            + _COST_ORDER * np.minimum(np.arange(len(candidates)), 12)
            + _COST_MOVE * moved
        )
        placed = np.concatenate([placed, candidates[[int(cost.argmin())]]])
    return placed[:, :2].astype(int)


def draw_label(
    picture: Image.Image, block: TextBlock, corner: tuple[int, int], box: np.ndarray, color: Color
) -> None:
    """Draw a text block at `corner`, with a line to its box where the two do not touch."""
    draw = ImageDraw.Draw(picture)
    x, y = (int(value) for value in corner)
    rectangle = np.array([x, y, x + block.width, y + block.height], dtype=float)
    if _gap(rectangle[None], box)[0] > 2:
        draw.line(_connection(rectangle, box), fill=color, width=max(1, block.font_size // 10))
    draw.rectangle((x, y, x + block.width - 1, y + block.height - 1), fill=color)
    font, ink = load_font(block.font_size), text_color(color)
    for number, line in enumerate(block.lines):
        top = y + _PADDING + number * _line_height(block.font_size)
        draw.text((x + _PADDING, top), line, font=font, fill=ink)


def wrap_parts(parts: list[str], font_size: int, max_width: int) -> list[str]:
    """Join `parts` into as few lines of at most `max_width` pixels as possible, in order."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}  |  {part}" if lines else part
        if lines and _text_width(longer, font_size) <= max_width:
            lines[-1] = longer
        else:
            lines.append(part)
    return [_shorten(line, font_size, max_width) for line in lines]


def _candidates(box: np.ndarray, size: np.ndarray, canvas_size: tuple[int, int]) -> np.ndarray:
    """(M, 4) integer rectangles: around and inside the box (the favourites first), then a grid."""
    (x0, y0, x1, y1), (width, height) = box, size
    room = np.array([canvas_size[1] - width, canvas_size[0] - height]).clip(min=0)
    near = [
        (x, y)
        for y in (y0 - height, y1, y0, y1 - height)
        for x in (x0, x1 - width, (x0 + x1 - width) / 2)
    ]
    columns = np.linspace(0, room[0], num=2 + int(2 * room[0] // max(width, 1)))
    rows = np.linspace(0, room[1], num=2 + int(room[1] // max(height, 1)))
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    corners = np.rint(np.concatenate([np.array(near), grid])).clip(min=0, max=room)
    return np.concatenate([corners, corners + size], axis=1)


def _intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, P) areas that the rectangles of (M, 4) and (P, 4) have in common."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return (high - low).clip(min=0).prod(axis=2)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).clip(min=1.0)


def _covered_share(candidates: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """(M,) share of each candidate that lies on labels that are already placed."""
    return _intersections(candidates, placed).sum(axis=1) / _areas(candidates)


def _hidden_share(candidates: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) sum of the shares of all boxes that a label there would hide."""
    return (_intersections(candidates, boxes) / _areas(boxes)).sum(axis=1)


def _gap(rectangles: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(M,) distances in pixels from rectangles to a box; 0 where they touch."""
    outside = np.maximum(box[:2] - rectangles[:, 2:], rectangles[:, :2] - box[2:]).clip(min=0)
    return np.hypot(outside[:, 0], outside[:, 1])


def _connection(rectangle: np.ndarray, box: np.ndarray) -> tuple[float, ...]:
    """End points of a line between a rectangle and the box, in its direction."""
    center = (box[:2] + box[2:]) / 2
    start = center.clip(rectangle[:2], rectangle[2:])
    end = start.clip(box[:2], box[2:])
    return (*start, *end)


def _text_width(text: str, font_size: int) -> int:
    return int(np.ceil(load_font(font_size).getlength(text)))


def _line_height(font_size: int) -> int:
    return sum(load_font(font_size).getmetrics())


def _shorten(text: str, font_size: int, room: int) -> str:
    """Cut the middle of a text that is too long, so that the scores at its end survive."""
    if _text_width(text, font_size) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = min(kept // 2, 5)
        shorter = text[: kept - tail].rstrip() + "…" + text[len(text) - tail :]
        if _text_width(shorter, font_size) <= room:
            return shorter
    return ""
