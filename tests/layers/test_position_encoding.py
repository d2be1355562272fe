import math

import pytest
import torch

from msr_d2.layers.position_encoding import sine_position_1d, sine_position_2d, sine_position_3d


def test_one_axis_by_hand():
    """Two cells are at pi and 2 pi (nearly); the second pair of channels turns 100 times slower."""
    found = sine_position_1d(2, 4)
    half, full = math.pi, 2 * math.pi
    expected = torch.tensor(
        [
            [math.sin(half), math.cos(half), math.sin(half / 100), math.cos(half / 100)],
            [math.sin(full), math.cos(full), math.sin(full / 100), math.cos(full / 100)],
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_image_has_y_before_x():
    found = sine_position_2d((2, 3), 8)
    assert found.shape == (8, 2, 3)
    y, x = sine_position_1d(2, 4), sine_position_1d(3, 4)
    torch.testing.assert_close(found[:, 1, 2], torch.cat([y[1], x[2]]))
    torch.testing.assert_close(found[:, 0, 2], torch.cat([y[0], x[2]]))


def test_a_clip_by_hand():
    """Time has all channels, with the divisors of all channels, and is added."""
    found = sine_position_3d((3, 1, 2), 8)
    assert found.shape == (3, 8, 1, 2)
    angles = {"t": 2 * math.pi * 2 / 3, "y": 2 * math.pi, "x": math.pi}
    expected = []
    for k in range(8):
        wave = math.sin if k % 2 == 0 else math.cos
        axis, channel = ("y", k) if k < 4 else ("x", k - 4)
        plane = wave(angles[axis] / 10000 ** (2 * (channel // 2) / 4))
        expected.append(plane + wave(angles["t"] / 10000 ** (2 * (k // 2) / 8)))
    torch.testing.assert_close(found[1, :, 0, 0], torch.tensor(expected), rtol=0, atol=1e-5)


def test_loop_over_the_definition():
    """x, y and z of a small clip, written out channel by channel."""
    frames, height, width, channels = 2, 3, 4, 12
    found = sine_position_3d((frames, height, width), channels)
    for index in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        counts, sizes = [i + 1 for i in index], (frames, height, width)
        t, y, x = (2 * math.pi * c / (n + 1e-6) for c, n in zip(counts, sizes))
        for k in range(channels):
            wave = math.sin if k % 2 == 0 else math.cos
            half = channels // 2
            angle, j = (y, k) if k < half else (x, k - half)
            value = wave(angle / 10000 ** (2 * (j // 2) / half))
            value += wave(t / 10000 ** (2 * (k // 2) / channels))
            assert found[index[0], k, index[1], index[2]] == pytest.approx(value, abs=1e-5)


def test_widths_that_cannot_be_divided():
    with pytest.raises(ValueError, match="even number of channels, not 3"):
        sine_position_1d(2, 3)
    with pytest.raises(ValueError, match="divisible by 4, not 6.*HIDDEN_DIM"):
        sine_position_2d((2, 2), 6)
