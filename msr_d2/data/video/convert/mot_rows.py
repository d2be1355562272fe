"""Rows of MOT challenge text files.

A row is ``frame, id, x, y, w, h, conf, class, visibility``; frames and coordinates start at 1.
Files of 2015 have ten columns, without class and visibility.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ...errors import DatasetError

PEDESTRIAN = 1  # the class of files that have no class column


@dataclass(frozen=True)
class MotRow:
    """A box: frame from 0, [x, y, w, h] in pixels from 0; visibility is None where unknown."""

    frame: int
    track: int
    box: list[float]
    ignored: bool
    category: int
    visibility: float | None


def read_rows(path: Path) -> list[MotRow]:
    """The boxes of a text file, in its order.

    Raises:
        DatasetError: names file, line and value.
    """
    rows: list[MotRow] = []
    seen: dict[tuple[int, int], int] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"'{path}' cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row = _parse(line, f"'{path}', line {number}")
        first = seen.setdefault((row.frame, row.track), number)
        if first != number:
            raise DatasetError(
                f"'{path}', line {number}: object {row.track} has a box in frame {row.frame + 1} "
                f"already (line {first}). Take one of them out."
            )
        rows.append(row)
    return rows


def _parse(line: str, where: str) -> MotRow:
    try:
        values = [float(value) for value in line.replace(",", " ").split()]
    except ValueError as error:
        raise DatasetError(f"{where}: {error}. A row is 9 numbers with commas.") from error
    if not 6 <= len(values) <= 10 or not all(map(math.isfinite, values)):
        raise DatasetError(
            f"{where}: '{line.strip()}' is no row of 6 to 10 finite numbers (frame, id, x, y, w, "
            "h, conf, class, visibility)."
        )
    frame, track, x, y, width, height = values[:6]
    if frame != int(frame) or frame < 1 or track != int(track):
        raise DatasetError(
            f"{where}: frame {frame:g} and id {track:g} must be integers, and frames start at 1."
        )
    # the ten columns of 2015 end with a position in the world instead of class and visibility
    new_form = len(values) in (8, 9)
    return MotRow(
        int(frame) - 1,
        int(track),
        [x - 1, y - 1, width, height],
        ignored=len(values) > 6 and values[6] == 0,
        category=int(values[7]) if new_form and values[7] > 0 else PEDESTRIAN,
        visibility=values[8] if len(values) == 9 and values[8] >= 0 else None,
    )
