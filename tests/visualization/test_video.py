"""Tracks on frames: colours that stay, masks of the right frame, nothing where nothing is seen."""

import numpy as np
import pytest
from pycocotools import mask as mask_util

from msr_d2.visualization import Track, TrackPainter, draw_tracks, tracks_to_draw
from msr_d2.visualization.canvas import draw_objects, font_size_for
from msr_d2.visualization.labels import place_labels
from msr_d2.visualization.style import _to_lab, track_color
from msr_d2.visualization.video import decode_mask, drawable

SIZE = (60, 100)


def rle(x0, y0, x1, y1, size=SIZE):
    mask = np.zeros(size, np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return mask_util.encode(mask)


def moving(count=4, absent=()):
    """A square of 20 pixels that moves 10 pixels to the right in each frame."""
    return [None if t in absent else rle(10 * t, 20, 10 * t + 20, 40) for t in range(count)]


def output(scores=(0.9, 0.3, 0.6), labels=(1, 0, 7)):
    return {"scores": list(scores), "labels": list(labels), "masks": [moving() for _ in scores]}


def blank():
    return np.full((*SIZE, 3), 128, np.uint8)


class TestColors:
    def test_each_track_has_its_own(self):
        colors = [track_color(index) for index in range(200)]
        assert len(set(colors)) == 200
        assert [track_color(index) for index in range(200, 210)] == colors[:10]

    def test_those_of_one_video_can_be_told_apart(self):
        """A CIE76 difference of 20 is far more than the 2.3 that can just be noticed."""
        lab = _to_lab([track_color(index) for index in range(40)])
        gaps = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(40)
        assert gaps.min() > 20

    def test_they_do_not_depend_on_what_was_asked_before(self):
        wanted = [track_color(index) for index in range(30)]
        track_color.cache_clear()
        assert [track_color(index) for index in range(29, -1, -1)] == wanted[::-1]

    def test_a_track_keeps_its_color_in_all_frames_and_for_all_thresholds(self):
        for threshold in (0.0, 0.5, 0.8):
            tracks = tracks_to_draw(output(), score_threshold=threshold)
            assert tracks[0].color == track_color(0)
        for frame in range(4):
            picture = draw_tracks(blank(), tracks, frame, alpha=1.0)
            assert tuple(picture[30, 10 * frame + 10]) == track_color(0)


class TestTracksToDraw:
    def test_the_best_first_and_those_below_the_threshold_not(self):
        names = ["dot", "star"]
        tracks = tracks_to_draw(output(), names)
        assert [x.text for x in tracks] == ["#0 star 0.90", "#2 class 7 0.60"]
        assert [x.color for x in tracks] == [track_color(0), track_color(2)]
        plain = tracks_to_draw(output(), names, score_threshold=0.0, numbered=False)
        assert [x.text for x in plain] == ["star 0.90", "class 7 0.60", "dot 0.30"]

    def test_tensors_and_scores_that_are_no_numbers(self):
        torch = pytest.importorskip("torch")
        scores, labels = torch.tensor([0.5, float("nan")]), torch.tensor([0, 1])
        found = {"scores": scores, "labels": labels, "masks": [moving(), moving()]}
        assert len(tracks_to_draw(found, score_threshold=0.0)) == 1

    def test_no_tracks(self):
        empty = {"scores": [], "labels": [], "masks": []}
        assert tracks_to_draw(empty) == []
        assert (draw_tracks(blank(), [], 0) == blank()).all()


class TestDrawTracks:
    def test_the_mask_of_the_frame_is_drawn(self):
        track = Track(moving(), "", (255, 0, 0))
        for frame in range(4):
            inside = np.zeros(SIZE, bool)
            inside[20:40, 10 * frame : 10 * frame + 20] = True
            found = drawable(track, frame, SIZE)
            assert (found.mask == inside).all()
            assert found.box.tolist() == [10 * frame, 20, 10 * frame + 20, 40]
            picture = draw_tracks(blank(), [track], frame, alpha=0.5)
            assert tuple(picture[30, 10 * frame + 10]) == (192, 64, 64)  # half way to red

    def test_the_outline_is_opaque_and_nothing_changes_elsewhere(self):
        track = Track([rle(30, 20, 60, 40)], "", (255, 0, 0))
        picture = draw_tracks(blank(), [track], 0, alpha=0.3)
        assert tuple(picture[20, 45]) == (255, 0, 0)
        changed = (picture != 128).any(axis=2)
        changed[19:41, 29:61] = False
        assert not changed.any()

    def test_a_frame_without_the_object_stays_as_it_is(self):
        empty = rle(0, 0, 0, 0)
        for masks in ([None, None], [empty, empty]):
            track = Track(masks, "dot 0.90", (255, 0, 0))
            assert (draw_tracks(blank(), [track], 1) == blank()).all()

    @pytest.mark.parametrize("size", [(60, 100), (5, 7), (720, 1280), (700, 20)])
    def test_the_size_stays_unless_asked_otherwise(self, size):
        track = Track([rle(0, 0, 5, 5, size)], "dot 0.90", (255, 0, 0))
        frame = np.zeros((*size, 3), np.uint8)
        assert draw_tracks(frame, [track], 0).shape == (*size, 3)
        larger = draw_tracks(frame, [track], 0, enlarge=True).shape
        assert max(larger) >= 600

    def test_small_frames_have_small_text(self):
        sizes = [(64, 64), (240, 320), (480, 640), (1080, 1920)]
        assert [font_size_for(np.zeros((*x, 3))) for x in sizes] == [8, 13, 13, 26]

    def test_gray_frames(self):
        assert draw_tracks(blank()[:, :, 0], [], 0).shape == (*SIZE, 3)

    def test_boxes(self):
        track = Track([rle(30, 20, 60, 40)], "", (255, 0, 0))
        (item,) = [drawable(track, 0, SIZE)]
        item.mask = None
        picture = draw_objects(blank(), [item], [], alpha=1, draw_boxes=True, enlarge=False)
        assert tuple(picture[20, 45]) == (255, 0, 0) and tuple(picture[30, 45]) == (128,) * 3

    def test_only_this_frame_is_decoded(self, monkeypatch):
        """A long video is drawn in the memory of one frame."""
        decoded = []
        decode = mask_util.decode
        monkeypatch.setattr(mask_util, "decode", lambda x: decoded.append(x) or decode(x))
        tracks = [Track(moving(), "", (255, 0, 0)), Track(moving(), "", (0, 255, 0))]
        draw_tracks(blank(), tracks, 2)
        assert decoded == [tracks[0].masks[2], tracks[1].masks[2]]


class TestLabelsStay:
    SIZES = np.array([[30, 10]])

    def place(self, *wanted, boxes=((40.0, 30.0, 60.0, 50.0),)):
        sizes = np.repeat(self.SIZES, len(boxes), axis=0)
        wanted = [None if x is None else np.array(x) for x in wanted]
        return place_labels(np.array(boxes), sizes, (100, 200), wanted).tolist()

    def test_where_they_were_unless_that_is_bad(self):
        (usual,) = self.place(None)
        assert (
            usual
            == place_labels(np.array([[40.0, 30, 60, 50]]), self.SIZES, (100, 200)).tolist()[0]
        )
        below = [45.0, 51.0]
        assert self.place(below) == [below] and below != usual
        assert self.place([190.0, 95.0]) == [usual]  # far away
        assert self.place([-5.0, 35.0]) != [[-5, 35]]  # outside

    def test_never_on_another_label(self):
        first, second = self.place([45.0, 51.0], [50.0, 52.0], boxes=[(40.0, 30.0, 60.0, 50.0)] * 2)
        assert first == [45, 51]
        assert abs(second[0] - 45) >= 30 or abs(second[1] - 51) >= 10

    def test_the_painter_remembers_the_place_beside_the_object(self):
        """At the edge there is no room above the object; a little lower there is, but no need."""
        masks = [rle(30, 3, 60, 30), rle(31, 16, 61, 43), None]
        tracks = [Track(masks, "dot 0.90", (255, 0, 0))]
        fresh, painter = TrackPainter(tracks), TrackPainter(tracks)
        fresh.draw(blank(), 1)
        painter.draw(blank(), 0)
        (offset,) = painter._label_offsets.values()
        painter.draw(blank(), 1)
        assert (painter._label_offsets[0] == offset).all()
        assert (fresh._label_offsets[0] != offset).any()
        assert (painter.draw(blank(), 2) == blank()).all() and painter._label_offsets == {}


class TestDecodeMask:
    def test_every_kind_of_run_lengths(self):
        wanted = np.zeros((2, 3), bool)
        wanted[1, 0] = wanted[0, 1] = True
        compressed = mask_util.encode(np.asfortranarray(wanted.astype(np.uint8)))
        text = {**compressed, "counts": compressed["counts"].decode()}
        plain = {"size": [2, 3], "counts": [1, 2, 3]}
        for kind in (compressed, text, plain):
            assert (decode_mask(kind, (2, 3)) == wanted).all()
        assert decode_mask(None, (2, 3)) is None

    def test_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"a mask is \(60, 100\) but its frame \(100, 60\)"):
            decode_mask(rle(0, 0, 5, 5), (100, 60))

    @pytest.mark.parametrize("frame", [4, -1])
    def test_a_frame_that_the_track_lacks_is_refused(self, frame):
        with pytest.raises(ValueError, match="a track of 4 frames"):
            draw_tracks(blank(), [Track(moving(), "", (0, 0, 0))], frame)
