"""Which frames of a video make a training clip."""

from __future__ import annotations

import numpy as np


def sample_frames(
    length: int,
    num_frames: int,
    frame_range: int,
    shuffle: bool,
    generator: np.random.Generator,
    replace: bool = True,
) -> list[int]:
    """Draw the frames of a clip; a pure function of its arguments and the generator's state.

    A reference frame is uniform over the video. The others come from the frames at most
    `frame_range` before or after it, the reference itself left out. With replacement (the rule of
    the Mask2Former-VIS family) these may repeat. Without, all frames differ; only where the window
    is too short for that, it is used up before a frame repeats.

    Args:
        length: number of frames of the video; in one of a single frame the clip repeats it.
        num_frames: frames of the clip.
        frame_range: reach of the window to either side of the reference frame, in frames.
        shuffle: random order instead of increasing order.
        generator: source of all randomness.
        replace: draw with replacement.

    Returns:
        `num_frames` indices from 0 to `length` - 1.

    Raises:
        ValueError: if `length` or `num_frames` is less than 1, or `frame_range` is negative.
    """
    if length < 1 or num_frames < 1 or frame_range < 0:
        raise ValueError(
            f"cannot draw {num_frames} frames within +-{frame_range} frames from a video of "
            f"{length}: INPUT.SAMPLING_FRAME_NUM and the length must be at least 1, "
            "INPUT.SAMPLING_FRAME_RANGE at least 0."
        )
    reference = int(generator.integers(length))
    window = np.arange(max(0, reference - frame_range), min(length, reference + frame_range + 1))
    others = window[window != reference] if len(window) > 1 else window
    if replace:
        drawn = generator.choice(others, num_frames - 1)
    else:
        drawn = _draw_distinct(others, window, num_frames - 1, generator)
    frames = [reference, *drawn.tolist()]
    if shuffle:
        generator.shuffle(frames)
    else:
        frames.sort()
    return frames


def _draw_distinct(
    others: np.ndarray, window: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    drawn = generator.permutation(others)
    while len(drawn) < count:
        drawn = np.concatenate([drawn, generator.permutation(window)])
    return drawn[:count]
