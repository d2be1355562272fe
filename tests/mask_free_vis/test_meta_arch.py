import copy
import subprocess
import sys

import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from end_to_end import EndToEnd

from msr_d2.mask_free_vis.clips import TargetSettings, clip_targets, pad_frames
from msr_d2.mask_free_vis.criterion import BOX_LOSSES, MASK_LOSSES
from msr_d2.testing import rectangle_instances, tiny_clips, tiny_images, tiny_vis_cfg


def with_suffixes(names):
    return {f"{name}{suffix}" for name in names for suffix in ("_0", "_1", "_2", "")}


class OfClips(EndToEnd):
    def without_objects(self, item):
        empty = []
        for instances in item["instances"]:
            frame = rectangle_instances([], [], instances.image_size, masks="bitmask")
            frame.gt_ids = frame.gt_classes.clone()
            if not instances.has("gt_masks"):
                frame.remove("gt_masks")
            empty.append(frame)
        return {**item, "instances": empty}

    @torch.no_grad()
    def test_batched_inference_equals_one_by_one(self, model):
        batch = self.make_batch()
        model.eval()
        for item, together in zip(batch, model(batch)):
            assert model([item])[0]["masks"] == together["masks"]


class TestBoxes(OfClips):
    losses = with_suffixes(["loss_ce", *BOX_LOSSES])

    def make_cfg(self):
        return tiny_vis_cfg()

    def make_batch(self):
        return tiny_clips("box")


class TestMasks(OfClips):
    losses = with_suffixes(["loss_ce", *MASK_LOSSES])

    def make_cfg(self):
        return tiny_vis_cfg(["MODEL.MASK_FREE.SUPERVISION", "mask"])

    def make_batch(self):
        return tiny_clips("mask")


class TestImages(EndToEnd):
    losses = with_suffixes(["loss_ce", *BOX_LOSSES])

    def make_cfg(self):
        return tiny_vis_cfg()

    def make_batch(self):
        return tiny_images("box")

    def without_objects(self, item):
        empty = rectangle_instances([], [], item["instances"].image_size)
        empty.remove("gt_masks")
        return {**item, "instances": empty}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(tiny_vis_cfg())


def losses_of(model, items):
    model.train()
    with EventStorage():
        return model(items)


def test_clips_of_different_lengths_share_a_batch(model):
    """Each length has its own forward pass; losses are means over the clips."""
    two, three = tiny_clips(num_clips=1, num_frames=2), tiny_clips(num_clips=1, num_frames=3)
    apart = losses_of(model, two), losses_of(model, three)
    together = losses_of(model, [*two, *three])
    for name, loss in together.items():
        torch.testing.assert_close(loss, (apart[0][name] + apart[1][name]) / 2)


def mixed_model():
    opts = ["MODEL.MASK_FREE.DATASET_SUPERVISION", [["with_masks", "mask"]]]
    return build_model(tiny_vis_cfg([*opts, "DATASETS.TRAIN", ("with_masks", "with_boxes")]))


def test_masks_of_clips_of_different_lengths_are_counted_once(monkeypatch):
    """One exchange between the processes a step, however many lengths a batch has."""
    model, counts = mixed_model(), []
    exchange = model.criterion.num_masks
    monkeypatch.setattr(
        model.criterion, "num_masks", lambda count: counts.append(count) or exchange(count)
    )
    (short,) = tiny_clips("mask", num_clips=1, num_frames=2)
    (long,) = tiny_clips("mask", num_clips=1, num_frames=3)
    (box,) = tiny_clips("box", num_clips=1, num_frames=1)
    losses = losses_of(model, [short, long, box])
    assert counts == [4]
    assert losses["loss_dice"] > 0


def test_boxes_and_masks_share_a_batch():
    model = mixed_model()
    (box,), (mask,) = tiny_clips("box", num_clips=1), tiny_clips("mask", num_clips=1)
    losses = losses_of(model, [box, mask])
    assert with_suffixes(["loss_ce", *BOX_LOSSES, *MASK_LOSSES]) == set(losses)
    assert losses["loss_mask"] > 0 and losses["loss_mask_proj"] > 0
    only_boxes = losses_of(model, [box])
    assert set(only_boxes) == set(losses) and only_boxes["loss_mask"] == 0


def test_no_mask_reaches_the_losses_of_box_supervision(model):
    """Even if an item has masks, box supervision gives the same losses for any of them."""
    clips = tiny_clips("mask", num_clips=1)
    clips[0]["supervision"] = "box"
    frames = pad_frames(clips[0]["image"], 32)
    settings = TargetSettings.from_config(tiny_vis_cfg())
    assert clip_targets(clips[0], frames, settings).masks is None
    emptied = copy.deepcopy(clips)
    for instances in emptied[0]["instances"]:
        instances.gt_masks = BitMasks(torch.zeros_like(instances.gt_masks.tensor))
    assert losses_of(model, clips) == losses_of(model, emptied)


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_objects_that_no_frame_shows_are_left_out(supervision):
    (clip,) = tiny_clips(supervision, num_clips=1)
    frames, settings = pad_frames(clip["image"], 32), TargetSettings.from_config(tiny_vis_cfg())
    both = clip_targets(clip, frames, settings)
    for instances in clip["instances"]:
        instances.gt_ids[0] = -1
    one = clip_targets(clip, frames, settings)
    assert torch.equal(one.labels, both.labels[1:])
    assert torch.equal(one.boxes, both.boxes[1:])
    assert supervision == "box" or torch.equal(one.masks, both.masks[1:])


@pytest.mark.parametrize("supervision", [None, "masks"])
def test_an_item_must_say_how_it_is_supervised(model, supervision):
    clips = tiny_clips(num_clips=1)
    clips[0]["supervision"] = supervision
    with pytest.raises(ValueError, match="supervision .*'box', 'mask'"):
        losses_of(model, clips)


def test_mask_supervision_needs_masks():
    model = build_model(tiny_vis_cfg(["MODEL.MASK_FREE.SUPERVISION", "mask"]))
    clips = tiny_clips("box", num_clips=1)
    clips[0]["supervision"] = "mask"
    with pytest.raises(ValueError, match="has none: give its data set segmentations"):
        losses_of(model, clips)


def test_frames_in_bgr_give_the_targets_of_rgb():
    clips = tiny_clips(num_clips=1)
    frames = pad_frames(clips[0]["image"], 32)
    rgb = TargetSettings.from_config(tiny_vis_cfg())
    bgr = TargetSettings.from_config(tiny_vis_cfg(["INPUT.FORMAT", "BGR"]))
    expected = clip_targets(clips[0], frames, rgb).affinities
    found = clip_targets(clips[0], frames.flip(1), bgr).affinities
    assert torch.equal(expected.edges, found.edges)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_frames_in_chunks_give_the_same_tracks(model, chunk):
    (clip,) = tiny_clips(num_clips=1, num_frames=5)
    model.eval()
    model.chunk_frames = 0
    expected = model([clip])[0]
    model.chunk_frames = chunk
    found = model([clip])[0]
    assert found["masks"] == expected["masks"]
    torch.testing.assert_close(found["scores"], expected["scores"])


@torch.no_grad()
def test_tracks_have_the_size_of_the_video(model):
    (clip,) = tiny_clips(num_clips=1, num_frames=2)
    clip["height"], clip["width"] = 100, 150
    output = model.eval()([clip])[0]
    assert len(output["masks"]) == len(output["scores"]) == len(output["labels"]) == 10
    sizes = {tuple(rle["size"]) for track in output["masks"] for rle in track if rle}
    assert sizes == {(100, 150)}
    assert (output["scores"][:-1] >= output["scores"][1:]).all()


@torch.no_grad()
def test_padding_is_not_part_of_the_frame(model):
    """Frames of 60 x 90 pixels are padded to 64 x 96."""
    (clip,) = tiny_clips(num_clips=1, num_frames=2)
    clip["image"] = [frame[:, :60, :90] for frame in clip["image"]]
    del clip["height"], clip["width"]
    output = model.eval()([clip])[0]
    assert {tuple(rle["size"]) for track in output["masks"] for rle in track if rle} == {(60, 90)}


@torch.no_grad()
def test_windows_join_the_tracks_of_a_still_video(model):
    """Every window sees the same picture, so all tracks go on, and nothing changes."""
    (clip,) = tiny_clips(num_clips=1, num_frames=1)
    clip["image"] = clip["image"] * 9
    model.eval()
    model.window_above, model.window_frames, model.window_overlap = 5, 4, 2
    long = model([clip])[0]
    assert all(len(track) == 9 for track in long["masks"])
    visible = [track for track in long["masks"] if track[0]]
    assert visible
    model.window_above = 0
    clip["image"] = clip["image"][:4]
    short = model([clip])[0]
    torch.testing.assert_close(long["scores"], short["scores"], atol=1e-4, rtol=1e-4)
    for a, b in zip(long["masks"], short["masks"]):
        assert [bool(x) for x in a[:4]] == [bool(x) for x in b]
        for x, y in zip(a, b):
            if x:
                assert mask_util.iou([x], [y], [0])[0, 0] > 0.9


@torch.no_grad()
def test_short_videos_are_never_cut_into_windows(model):
    (clip,) = tiny_clips(num_clips=1, num_frames=3)
    model.eval()
    expected = model([clip])[0]
    model.window_above, model.window_frames, model.window_overlap = 3, 2, 1
    assert model([clip])[0]["masks"] == expected["masks"]


@pytest.mark.parametrize(
    "key, value", [("TOP_K", -1), ("CHUNK_FRAMES", -1), ("WINDOW_MIN_SCORE", -1.0)]
)
def test_bad_numbers_of_inference_are_refused_at_once(key, value):
    opts = ["MODEL.MASK_FREE.TEST.WINDOW_ABOVE", 100, f"MODEL.MASK_FREE.TEST.{key}", value]
    with pytest.raises(ValueError, match=f"{key} is -1"):
        build_model(tiny_vis_cfg(opts))


def test_inference_records_no_graph(model):
    (clip,) = tiny_clips(num_clips=1, num_frames=5)
    model.window_above, model.window_frames, model.window_overlap = 3, 3, 1
    assert not model.eval()([clip])[0]["scores"].requires_grad


def test_windows_that_cannot_overlap_are_refused_at_once():
    opts = ["MODEL.MASK_FREE.TEST.WINDOW_ABOVE", 10, "MODEL.MASK_FREE.TEST.WINDOW_OVERLAP", 60]
    with pytest.raises(ValueError, match="WINDOW_OVERLAP is 60"):
        build_model(tiny_vis_cfg(opts))


MEMORY = """
import sys, torch
from detectron2.modeling import build_model
from msr_d2.benchmark.timing import peak_resident_kib
from msr_d2.testing import tiny_vis_cfg

class Frames:
    def __init__(self, number): self.number = number
    def __len__(self): return self.number
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.number))]
        return torch.full((3, 192, 320), index % 256, dtype=torch.uint8)

prefix = "MODEL.MASK_FREE.TEST."
opts = [prefix + "CHUNK_FRAMES", int(sys.argv[2]), prefix + "WINDOW_ABOVE", int(sys.argv[3])]
model = build_model(tiny_vis_cfg([*opts, prefix + "WINDOW_FRAMES", 20])).eval()
with torch.no_grad():
    model([{"image": Frames(4)}])
    before = peak_resident_kib()
    output = model([{"image": Frames(int(sys.argv[1]))}])[0]
assert all(len(track) == int(sys.argv[1]) for track in output["masks"])
print((peak_resident_kib() - before) // 1024)
"""


def added_mebibytes(frames, chunk, window_above):
    words = [sys.executable, "-c", MEMORY, *map(str, (frames, chunk, window_above))]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_300_frames_stay_under_a_memory_cap():
    """Windows of 20 frames: a tenth of what 60 frames need when they are taken at once."""
    assert added_mebibytes(300, 4, 40) < 120
    assert added_mebibytes(60, 0, 0) > 240
