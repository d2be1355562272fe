"""One draw per clip: the same for all frames, whatever is done with the frames afterwards."""

import numpy as np
import pytest
from detectron2.data import transforms as T
from fvcore.transforms.transform import TransformList

from msr_d2.data.video.augmentation import (
    CropByClip,
    FlipByClip,
    ResizeShortestEdgeByClip,
    RotateByClip,
    SwingByClip,
    draw_transforms,
    output_size,
)
from msr_d2.data.video.augmentation_config import build_clip_augmentations
from msr_d2.data.video.color import ColorByClip
from msr_d2.testing import tiny_vis_cfg

SIZE = (64, 96)


def generator(seed=0):
    return np.random.default_rng(seed)


def picture(seed=0, size=SIZE):
    return generator(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def parameters(transform):
    return {k: v for k, v in vars(transform).items() if not callable(v)}


@pytest.mark.parametrize(
    "augmentation",
    [
        ResizeShortestEdgeByClip((32, 48, 64), 200),
        ResizeShortestEdgeByClip((32, 64), 200, "range_by_clip"),
        FlipByClip(),
        FlipByClip(vertical=True),
        CropByClip("relative_range", (0.3, 0.3)),
        RotateByClip(),
        *(ColorByClip(kind, "RGB") for kind in ("brightness", "contrast", "saturation")),
    ],
    ids=lambda x: type(x).__name__,
)
def test_all_frames_get_the_same_and_clips_differ(augmentation):
    drawn = [augmentation.draw(SIZE, 5, generator(seed)) for seed in range(20)]
    frame = picture()
    results = [[x.apply_image(frame) for x in clip] for clip in drawn]
    for clip in results:
        assert len(clip) == 5 and all(np.array_equal(image, clip[0]) for image in clip)
    assert len({clip[0].tobytes() for clip in results}) > 1
    again = augmentation.draw(SIZE, 5, generator(7))[0].apply_image(frame)
    assert np.array_equal(again, results[7][0])


def test_a_draw_does_not_depend_on_global_random_numbers_or_on_calls():
    augmentations = [CropByClip("absolute", (40, 50)), FlipByClip(), RotateByClip()]
    np.random.seed(1)
    clip = draw_transforms(augmentations, SIZE, 3, generator(5))
    first = clip[2].apply_image(picture())
    np.random.seed(2)
    again = draw_transforms(augmentations, SIZE, 3, generator(5))
    for _ in range(2):  # transforming frames twice or in another order changes nothing
        assert np.array_equal(again[2].apply_image(picture()), first)


def test_sizes_chain():
    augmentations = [
        CropByClip("absolute", (32, 48)),
        ResizeShortestEdgeByClip((64,), 90),
        RotateByClip(),
        ColorByClip("contrast", "BGR"),
    ]
    transforms = draw_transforms(augmentations, SIZE, 2, generator())
    # 32 x 48 to 64 x 96, but the longer side is at most 90.
    assert transforms[0].apply_image(picture()).shape == (60, 90, 3)
    assert output_size(TransformList(transforms), SIZE) == (60, 90)


@pytest.mark.parametrize("style", ["choice_by_clip", "choice"])
def test_choice_of_lengths(style):
    augmentation = ResizeShortestEdgeByClip((32, 48), 500, style)
    sizes = {output_size(augmentation.draw(SIZE, 1, generator(i))[0], SIZE) for i in range(30)}
    assert sizes == {(32, 48), (48, 72)}


def test_range_of_lengths():
    augmentation = ResizeShortestEdgeByClip((30, 33), 500, "range_by_clip")
    sizes = {output_size(augmentation.draw(SIZE, 1, generator(i))[0], SIZE) for i in range(60)}
    assert sizes == {(30, 45), (31, 47), (32, 48), (33, 50)}


def test_length_zero_keeps_the_size():
    transform = ResizeShortestEdgeByClip((0,), 10).draw(SIZE, 1, generator())[0]
    assert np.array_equal(transform.apply_image(picture()), picture())


@pytest.mark.parametrize(
    "kind, size, expected",
    [
        ("absolute", (40, 200), {(40, 96)}),
        ("relative", (0.5, 0.25), {(32, 24)}),
        ("absolute_range", (62, 500), {(h, w) for h in (62, 63, 64) for w in range(62, 97)}),
    ],
)
def test_crop_sizes_and_places(kind, size, expected):
    crops = [CropByClip(kind, size).draw(SIZE, 1, generator(i))[0] for i in range(50)]
    assert {(c.h, c.w) for c in crops} <= expected
    assert all(0 <= c.x0 <= 96 - c.w and 0 <= c.y0 <= 64 - c.h for c in crops)
    assert len({(c.x0, c.y0) for c in crops}) > 3


def test_rotation_keeps_the_size_and_turns_about_a_point_near_the_centre():
    for seed in range(30):
        (transform,) = RotateByClip().draw(SIZE, 1, generator(seed))
        assert -15 <= transform.angle <= 15
        assert transform.apply_image(picture()).shape == (*SIZE, 3)
        x, y = transform.center
        assert 0.4 * 96 <= x <= 0.6 * 96 and 0.4 * 64 <= y <= 0.6 * 64


def test_swing_has_sorted_angles_of_both_directions_about_one_point():
    directions = set()
    for seed in range(20):
        transforms = SwingByClip().draw(SIZE, 4, generator(seed))
        angles = np.array([t.angle for t in transforms])
        steps = np.sign(np.diff(angles))
        assert len(set(steps)) == 1 and len({tuple(t.center) for t in transforms}) == 1
        directions.add(steps[0])
    assert directions == {1, -1}


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_colours_equal_detectron2(kind):
    augmentation = {
        "brightness": T.RandomBrightness,
        "contrast": T.RandomContrast,
        "saturation": T.RandomSaturation,
    }[kind](1.1, 1.1)
    expected = augmentation.get_transform(picture()).apply_image(picture())
    transform = ColorByClip(kind, "RGB", (1.1, 1.1)).draw(SIZE, 1, generator())[0]
    assert np.array_equal(transform.apply_image(picture()), expected)
    swapped = ColorByClip(kind, "BGR", (1.1, 1.1)).draw(SIZE, 1, generator())[0]
    assert np.array_equal(swapped.apply_image(picture()[..., ::-1])[..., ::-1], expected)
    mask = np.arange(6).reshape(2, 3)
    assert np.array_equal(transform.apply_segmentation(mask), mask)
    assert np.array_equal(transform.apply_coords(mask), mask)


def names(cfg):
    return [type(x).__name__ for x in build_clip_augmentations(cfg)]


def test_what_a_config_asks_for():
    assert names(tiny_vis_cfg()) == ["ResizeShortestEdgeByClip", "FlipByClip"]
    opts = ["INPUT.RANDOM_FLIP", "none", "INPUT.AUGMENTATIONS", ["rotation", "contrast"]]
    opts += ["INPUT.CROP.ENABLED", True]
    expected = ["CropByClip", "ResizeShortestEdgeByClip", "ColorByClip", "RotateByClip"]
    assert names(tiny_vis_cfg(opts=opts)) == expected


@pytest.mark.parametrize(
    "opts, message",
    [
        (["INPUT.RANDOM_FLIP", "diagonal"], "INPUT.RANDOM_FLIP is 'diagonal'; known are none"),
        (["INPUT.AUGMENTATIONS", ["blur"]], r"INPUT.AUGMENTATIONS has \['blur'\]; known are"),
        (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "random"], "MIN_SIZE_TRAIN_SAMPLING is 'random'"),
        (["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "odd"], "CROP.TYPE is 'odd'"),
    ],
)
def test_unknown_wishes(opts, message):
    with pytest.raises(ValueError, match=message):
        build_clip_augmentations(tiny_vis_cfg(opts=opts))


@pytest.mark.parametrize(
    "kind, size",
    [
        ("absolute_range", (700, 384)),
        ("absolute_range", (0, 384)),
        ("absolute", (10, 0.5)),
        ("absolute", (10,)),
        ("relative", (1.5, 1.5)),
        ("relative_range", (0.0, 0.5)),
        ("relative_range", ("a", 0.5)),
    ],
)
def test_crops_that_cannot_be(kind, size):
    with pytest.raises(ValueError, match=rf"INPUT.CROP.SIZE is \(.*INPUT.CROP.TYPE '{kind}' it is"):
        CropByClip(kind, size)


def test_a_relative_crop_has_a_pixel_at_least():
    (crop,) = CropByClip("relative", (1e-3, 1.0)).draw(SIZE, 1, generator())
    assert (crop.h, crop.w) == (1, 96)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((64, 32), 99, "range_by_clip"), r"INPUT.MIN_SIZE_TRAIN is \(64, 32\).*Swap them"),
        (((), 99), r"INPUT.MIN_SIZE_TRAIN is \(\); it must have at least one size"),
        (((64, -1), 99), r"INPUT.MIN_SIZE_TRAIN is \(64, -1\)"),
        (((64,), 0), "INPUT.MAX_SIZE_TRAIN is 0"),
    ],
)
def test_sizes_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResizeShortestEdgeByClip(*arguments)
    assert ResizeShortestEdgeByClip((64, 32), 99)  # a choice has no order
