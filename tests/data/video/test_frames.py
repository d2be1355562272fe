"""Frames load when they are asked for, and say which file is wrong."""

import pickle

import pytest
import torch
from tiny_ytvis import write_videos

from msr_d2.data import DatasetError
from msr_d2.data.video import FrameSequence


@pytest.fixture
def names(tmp_path):
    write_videos(tmp_path, [], (6,))
    return [str(tmp_path / "JPEGImages" / "1" / f"{t:05d}.png") for t in range(6)]


def sequence(names, resized=(32, 48), size=(64, 96)):
    return FrameSequence(names, size, resized, "RGB")


def greys(frames):
    return [int(frame.float().mean()) for frame in frames]


def test_is_a_sequence_of_resized_tensors(names):
    frames = sequence(names)
    assert len(frames) == 6 and frames.image_size == (32, 48)
    assert greys(frames) == [0, 10, 20, 30, 40, 50]
    assert all(x.shape == (3, 32, 48) and x.dtype == torch.uint8 for x in frames)
    assert greys([frames[-1], frames[2]]) == [50, 20]
    with pytest.raises(IndexError):
        frames[6]


@pytest.mark.parametrize(
    "part", [slice(1, 4), slice(None), slice(0, 0), slice(4, 99), slice(5, 0, -2)]
)
def test_slices_are_lists_in_order(names, part):
    frames = sequence(names)[part]
    assert isinstance(frames, list) and greys(frames) == [0, 10, 20, 30, 40, 50][part]


def test_frames_of_the_right_size_are_not_resampled(names):
    from detectron2.data.detection_utils import read_image

    expected = torch.from_numpy(read_image(names[3], "RGB").copy()).permute(2, 0, 1)
    assert torch.equal(sequence(names, (64, 96))[3], expected)


def test_holds_no_pixels(names):
    frames = sequence(names)
    greys(frames)
    data = pickle.dumps(frames)
    assert len(data) < 2000
    assert greys(pickle.loads(data)) == greys(frames)


def test_missing_and_damaged_files_are_named(names, tmp_path):
    (tmp_path / "JPEGImages/1/00002.png").unlink()
    (tmp_path / "JPEGImages/1/00004.png").write_bytes(b"no image")
    frames = sequence(names)
    with pytest.raises(DatasetError, match="1/00002.png' .*FileNotFound.*Replace the file"):
        frames[2]
    with pytest.raises(DatasetError, match="1/00004.png"):
        frames[3:6]
    assert greys(frames[0:2]) == [0, 10]


def test_frames_of_another_size_are_named(names):
    with pytest.raises(DatasetError, match="1/00000.png' .*Correct its height and width"):
        sequence(names, size=(60, 96))[0]
