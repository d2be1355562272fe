"""Videos that were written are read as they were: frames, rate, size, in any order."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msr_d2.visualization import VideoError, VideoFrames, VideoWriter, video_file, video_writer
from msr_d2.visualization.folder_frames import frame_files, natural_key
from msr_d2.visualization.video_file import FileFrames, quarter_turns

av = pytest.importorskip("av")

SIZE = (64, 96)


def counter(index, size=SIZE):
    """A frame that tells its number: six columns, one for each binary digit."""
    digits = [(index >> i) & 1 for i in range(6)]
    columns = np.array([digits[x * 6 // size[1]] for x in range(size[1])], np.uint8)
    return np.tile(40 + 160 * columns[None, :, None], (size[0], 1, 3))


def number(frame):
    digits = [part.mean() > 120 for part in np.array_split(frame, 6, axis=1)]
    return sum(int(x) << i for i, x in enumerate(digits))


def write_video(path, count=60, codec="libx264", gop=10, rate=25, size=SIZE, options=None, turn=0):
    """A video with key frames every `gop` frames and, from x264, frames in another coded order."""
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = *size, "yuv420p"
        context.gop_size, context.max_b_frames = gop, 2 if codec == "libx264" else 0
        if turn:
            stream.set_display_rotation(turn)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(counter(index, size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4")


class TestRoundTrip:
    @pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), 25, 6, 12.5])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_rate_size_number_and_colors(self, tmp_path, fps, suffix):
        colors = [(200, 30, 10), (10, 200, 40), (20, 40, 220), (128, 128, 128)]
        with VideoWriter(tmp_path / f"a{suffix}", fps) as writer:
            for color in colors * 5:
                writer.write(np.full((*SIZE, 3), color, np.uint8))
        with VideoFrames.open(tmp_path / f"a{suffix}") as frames:
            assert (len(frames), frames.fps, frames.size) == (20, Fraction(fps), SIZE)
            for frame, color in zip(frames, colors * 5):
                assert np.abs(frame.astype(int) - color).max() <= 4

    @pytest.mark.parametrize("size", [(63, 95), (64, 95), (63, 96), (2, 2), (1, 1)])
    def test_odd_sizes_repeat_the_last_row_and_column(self, tmp_path, size):
        frame = np.random.default_rng(0).integers(0, 2, size, dtype=np.uint8) * 60 + 90
        with VideoWriter(tmp_path / "a.mp4", 10, quality=1) as writer:
            writer.write(frame)
        with VideoFrames.open(tmp_path / "a.mp4") as frames:
            even = tuple(x + x % 2 for x in size)
            assert frames.size == even and len(frames) == 1
            padded = np.pad(frame, [(0, x % 2) for x in size], mode="edge")
            assert np.abs(frames[0].mean(2) - padded).max() < 12

    def test_it_is_tagged_for_players(self, tmp_path):
        with VideoWriter(tmp_path / "a.mp4", 10) as writer:
            writer.write(counter(0))
        with av.open(str(tmp_path / "a.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt, int(context.colorspace)) == (
                "h264",
                "yuv420p",
                1,
            )
        content = (tmp_path / "a.mp4").read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")

    def test_without_x264(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
        with VideoWriter(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
            for index in range(5):
                writer.write(counter(index))
        assert "no libx264" in caplog.text
        with VideoFrames.open(tmp_path / "a.mp4") as frames:
            assert frames.fps == Fraction(30000, 1001)
            assert [number(x) for x in frames] == [0, 1, 2, 3, 4]


class TestWriterErrors:
    def test_a_frame_of_another_size(self, tmp_path):
        with VideoWriter(tmp_path / "a.mp4", 10) as writer:
            writer.write(counter(0))
            with pytest.raises(ValueError, match="frame 1 of .*a.mp4 is 95 x 64"):
                writer.write(counter(0, (64, 95)))

    @pytest.mark.parametrize("name, fps", [("a.webm", 10), ("a", 10), ("a.mp4", 0), ("a.mp4", -1)])
    def test_a_file_or_rate_that_cannot_be(self, tmp_path, name, fps):
        with pytest.raises(ValueError, match="cannot write a video|positive"):
            VideoWriter(tmp_path / name, fps)

    def test_no_frame_leaves_no_file(self, tmp_path):
        with VideoWriter(tmp_path / "a.mp4", 10):
            pass
        assert not (tmp_path / "a.mp4").exists()

    def test_without_pyav(self, tmp_path, monkeypatch):
        """A folder of frames needs none."""
        Image.fromarray(counter(0)).save(tmp_path / "a.png")
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ImportError, match="pip install av"):
            VideoWriter(tmp_path / "a.mp4", 10)
        (tmp_path / "b.mp4").touch()
        with pytest.raises(ImportError, match="pip install av"):
            VideoFrames.open(tmp_path / "b.mp4")
        assert number(VideoFrames.open(tmp_path)[0]) == 0


class TestAccess:
    """Any order gives the same frames; a file with B-frames and a key frame every ten."""

    @pytest.mark.parametrize("cache_bytes", [0, 3 * 64 * 96 * 12])
    @pytest.mark.parametrize("codec, suffix", [("libx264", ".mp4"), ("mpeg4", ".avi")])
    def test_any_order(self, tmp_path, codec, suffix, cache_bytes):
        frames = FileFrames(write_video(tmp_path / f"a{suffix}", codec=codec), cache_bytes)
        random = np.random.default_rng(0).integers(0, 60, 40).tolist()
        order = [*range(20), *range(10, 30), *range(59, 30, -1), 0, 59, 1, *random]
        assert [number(frames[i]) for i in order] == order
        assert len(frames._cache) <= max(1, cache_bytes // (3 * 64 * 96))

    def test_a_raw_stream_without_time_stamps(self, tmp_path):
        frames = FileFrames(write_video(tmp_path / "a.h264", count=30), cache_bytes=0)
        order = [0, 5, 29, 3, 4, 28, 0]
        assert len(frames) == 30 and [number(frames[i]) for i in order] == order

    def test_reading_in_order_decodes_each_frame_once(self, clip, monkeypatch):
        frames = FileFrames(clip)
        decoded = count_decoded(monkeypatch, frames)
        assert [number(x) for x in frames] == list(range(60)) and len(decoded) == 60

    def test_windows_decode_little_twice(self, clip, monkeypatch):
        """Windows of 20 with an overlap of 10: the overlap is in the cache."""
        frames = FileFrames(clip)
        decoded = count_decoded(monkeypatch, frames)
        for start in range(0, 50, 10):
            assert [number(x) for x in frames[start : start + 20]] == [*range(start, start + 20)]
        assert len(decoded) == 60

    def test_going_back_starts_at_a_key_frame(self, clip, monkeypatch):
        frames = FileFrames(clip, cache_bytes=0)
        assert number(frames[59]) == 59
        decoded = count_decoded(monkeypatch, frames)
        assert number(frames[47]) == 47 and len(decoded) <= 12

    def test_slices_load_nothing(self, clip, monkeypatch):
        frames = FileFrames(clip)
        decoded = count_decoded(monkeypatch, frames)
        view = frames[10:30:5]
        assert len(view) == 4 and len(view[1:]) == 3 and not decoded
        assert [number(view[1:][i]) for i in (0, -1)] == [15, 25]
        for index in (60, -61):
            with pytest.raises(IndexError):
                frames[index]

    def test_memory_does_not_grow_with_the_video(self, tmp_path):
        frames = FileFrames(write_video(tmp_path / "a.mp4", 70), cache_bytes=10 * 3 * 64 * 96)
        for _ in frames:
            assert len(frames._cache) <= 10


def count_decoded(monkeypatch, frames):
    """A list that grows by one for each frame that is decoded from now on."""
    decoded, decode = [], video_file.decode

    def counted(*args):
        for frame in decode(*args):
            decoded.append(1)
            yield frame

    monkeypatch.setattr(video_file, "decode", counted)
    if frames._position == 0:
        frames._rewind()
    return decoded


class TestFiles:
    @pytest.mark.parametrize("turn", [90, 180, -90])
    def test_a_rotation_is_applied(self, tmp_path, turn):
        """As a telephone writes it: the picture lies on its side, the file says how to turn it."""
        path = tmp_path / "a.mp4"
        with av.open(str(path), mode="w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            stream.set_display_rotation(turn)
            picture = np.zeros((64, 96, 3), np.uint8)
            picture[:20, :20] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        with VideoFrames.open(path) as frames:
            turned = np.rot90(picture, turn // 90 % 4)
            assert frames.size == turned.shape[:2] == frames[0].shape[:2]
            assert np.abs(frames[0].astype(int) - turned).mean() < 3

    def test_other_rotations_are_not(self, caplog):
        assert [quarter_turns(x, Path("a")) for x in (0, 90, -90, 180, -180, 89.6)] == [
            *(0, 1, 3, 2, 2, 1)
        ]
        assert quarter_turns(30, Path("a.mp4")) == 0 and "rotation by 30" in caplog.text

    def test_variable_rate(self, tmp_path):
        """Every second frame missing in the second half: the rate is the mean of the whole."""
        path = tmp_path / "a.mkv"
        times = [*range(30), *range(30, 60, 2)]
        with av.open(str(path), mode="w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            for index, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(counter(index), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with VideoFrames.open(path) as frames:
            assert float(frames.fps) == pytest.approx(44 / (58 / 30), rel=0.05)
            assert [number(x) for x in frames] == list(range(45))

    def test_a_cut_file_keeps_its_beginning(self, tmp_path):
        whole = write_video(tmp_path / "a.mkv", options={"crf": "1"}).read_bytes()
        (tmp_path / "b.mkv").write_bytes(whole[: len(whole) * 2 // 3])
        with VideoFrames.open(tmp_path / "b.mkv") as frames:
            numbers = [number(x) for x in frames]
            assert 20 < len(frames) < 60 and numbers[:20] == list(range(20))
            assert numbers == sorted(set(numbers)) and number(frames[3]) == 3

    def test_a_damaged_file_is_read_around_the_damage(self, tmp_path, caplog):
        data = bytearray(write_video(tmp_path / "a.mp4").read_bytes())
        start = data.index(b"mdat")
        middle = start + (data.index(b"moov") - start) // 2
        data[middle : middle + 150] = bytes(150)
        (tmp_path / "b.mp4").write_bytes(data)
        with VideoFrames.open(tmp_path / "b.mp4") as frames:
            assert 30 < len(frames) <= 60
            first, again = [x.copy() for x in frames], list(frames)
            assert [number(x) for x in first[:10]] == list(range(10))
            assert all((a == b).all() for a, b in zip(first, again))

    @pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
    def test_a_broken_file_is_named(self, tmp_path, content):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(VideoError, match=r"a\.mp4: no video that FFmpeg can read"):
            VideoFrames.open(tmp_path / "a.mp4")

    def test_a_file_without_pictures_is_named(self, tmp_path):
        with av.open(str(tmp_path / "a.mkv"), mode="w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 800), np.int16), format="s16", layout="mono"
            )
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
        with pytest.raises(VideoError, match="no video stream"):
            VideoFrames.open(tmp_path / "a.mkv")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(VideoError, match=r"a\.mp4: no such file"):
            VideoFrames.open(tmp_path / "a.mp4")

    def test_the_rate_can_be_replaced(self, clip):
        assert VideoFrames.open(clip, fps=12).fps == 12
        with pytest.raises(VideoError, match="positive"):
            VideoFrames.open(clip, fps=0)


class TestFolders:
    def test_natural_order(self, tmp_path):
        names = ["frame10.png", "frame2.png", "frame1.PNG", "Frame03.png"]
        for name in names:
            index = int("".join(x for x in name if x.isdigit()))
            Image.fromarray(counter(index)).save(tmp_path / name)
        (tmp_path / "notes.txt").touch()
        with VideoFrames.open(tmp_path) as frames:
            assert [number(x) for x in frames] == [1, 2, 3, 10]
            assert frames.names == ["frame1.PNG", "frame2.png", "Frame03.png", "frame10.png"]
            assert (frames.fps, frames.size) == (6, SIZE)

    def test_names_of_digits_and_letters_can_be_compared(self):
        names = ["a", "1", "a1", "1a", "01", "a01b", ""]
        assert sorted(names, key=natural_key) == ["", "01", "1", "1a", "a", "a1", "a01b"]

    def test_an_empty_folder_is_named(self, tmp_path):
        with pytest.raises(VideoError, match="no pictures in this folder"):
            VideoFrames.open(tmp_path)

    def test_frames_of_other_sizes_are_named_before_anything_runs(self, tmp_path):
        Image.fromarray(counter(0)).save(tmp_path / "0.png")
        Image.fromarray(counter(0, (32, 32))).save(tmp_path / "1.png")
        with pytest.raises(VideoError, match=r"1\.png is 32 x 32, but the first frame is 96 x 64"):
            VideoFrames.open(tmp_path)

    def test_the_exif_orientation_is_applied(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(counter(4)).save(tmp_path / "0.jpg", exif=exif)
        with VideoFrames.open(tmp_path) as frames:
            assert frames.size == (96, 64) == frames[0].shape[:2]

    def test_a_truncated_frame_is_named(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "0.png")
        data = (tmp_path / "0.png").read_bytes()
        (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
        frames = VideoFrames.open(tmp_path)
        with pytest.raises(VideoError, match=r"cannot read frame .*1\.png"):
            frames[1]
        (tmp_path / "2.png").write_text("text")
        with pytest.raises(VideoError, match=r"2\.png"):
            VideoFrames.open(tmp_path)

    def test_only_pictures_are_frames(self, tmp_path):
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "a.mp4").touch()
        assert frame_files(tmp_path) == []


def test_every_suffix_that_can_be_written_can_be_read():
    assert set(video_writer.WRITABLE_SUFFIXES) <= set(video_file.VIDEO_SUFFIXES)
