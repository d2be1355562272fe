"""The knobs of the shapes set and of its moving clips."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from .outlines import CLIP_CATEGORIES


@dataclass(frozen=True)
class ShapesStyle:
    """How scenes are drawn. Ranges are (lowest, highest); lengths are shares of the image's side.

    Hardness: ``hard_share`` of the objects get one of the treatments of ``hardness.py``, which make
    the outline hard to follow and leave the class easy to see. ``off_hue`` does the opposite: it
    blurs the class of objects that have easy masks, so that class confidence does not give away
    mask quality.

    Attributes:
        objects: annotated objects an image.
        size: side of an object's box, drawn uniformly in the logarithm.
        crowding: least distance of two objects' centres, in sums of their half sides; below about
            0.9 they hide parts of each other.
        min_visible: an object of which less than this share can be seen is taken out.
        hard_share: share of the objects with a hard mask.
        hard_kinds: relative frequency of the treatments.
        slat_period, slat_fill: slatted objects: distance of two slats, share that is not cut away.
        pane_size: holes and panes of perforated objects: their size.
        hair_length: hairy objects: length of the hairs, in object units.
        fade_strength: opacity that a fading object loses on its soft side.
        scribbles: number of strokes over a scribbled object.
        off_hue: share of the easy objects that wear a hue of another class.
        contrast: difference of an object's two tones, as a share of its brightness.
        distractors: shapes without a class that lie behind the objects.
        occluders: the same, between and in front of the objects.
        strokes: thin lines in front of everything.
        vivid_share: share of the distractors with the saturated colours of objects.
        crowd_share, empty_share: share of images with a crowd region, and without objects.
        noise: camera noise, in grey levels.
    """

    objects: tuple[int, int] = (2, 6)
    size: tuple[float, float] = (0.16, 0.50)
    crowding: float = 0.85
    min_visible: float = 0.6
    hard_share: float = 0.5
    hard_kinds: dict[str, float] = field(
        default_factory=lambda: {
            "slats": 3.0,
            "holes": 2.0,
            "hairs": 2.0,
            "fade": 1.0,
            "scribbles": 1.0,
        }
    )
    slat_period: tuple[float, float] = (0.022, 0.034)
    slat_fill: tuple[float, float] = (0.50, 0.62)
    pane_size: tuple[float, float] = (0.030, 0.050)
    hair_length: tuple[float, float] = (0.25, 0.45)
    fade_strength: tuple[float, float] = (0.75, 0.95)
    scribbles: tuple[int, int] = (4, 7)
    off_hue: float = 0.15
    contrast: tuple[float, float] = (0.05, 0.30)
    distractors: tuple[int, int] = (1, 4)
    occluders: tuple[int, int] = (0, 2)
    strokes: tuple[int, int] = (0, 2)
    vivid_share: float = 0.25
    crowd_share: float = 0.05
    empty_share: float = 0.04
    noise: float = 4.0


@dataclass(frozen=True)
class ClipStyle:
    """How moving clips are drawn. Ranges are (lowest, highest).

    Lengths are shares of the frame's shorter side, speeds are per frame, angles in radians. Shares
    of clips and objects are probabilities in [0, 1].

    Attributes:
        classes: names of ``outlines.CLIP_CATEGORIES`` that occur.
        objects: annotated objects a clip.
        size: side of an object's box (of the unrotated outline), uniform in the logarithm.
        crowding: least distance of two objects' centres at the start, in sums of their half sides.
        travel: distance between an object's first and last position.
        sway: amplitude of a swing around the straight way.
        spin_share, spin: objects that turn, and by how much a frame, to either side.
        scale_share, scale: objects that grow or shrink, and their size at the end relative to the
            start (or the inverse).
        leave_share: clips in which an object leaves the frame and returns.
        twins_share: clips with two objects of the same class and paint.
        camera_share, camera: clips whose camera drifts, and its speed; all that is in the scene
            drifts with the background.
        distractors: shapes without a class that lie behind the objects and do not move by
            themselves.
        decoy_share: share of the distractors that wear the hue of a class.
        occluders: shapes without a class that cross the frame in front of the objects.
        faint_share, faint: objects whose paint is mixed with the background's, and the share of the
            background in it: their borders are weak.
        hue_spread: deviation of an object's hue from that of its class.
        contrast: difference of an object's two tones, as a share of its brightness.
        grain: amplitude of the fine noise in object textures, grey levels.
        noise: camera noise, grey levels.
        min_visible: share of its full area that can be seen of an object ...
        min_frames: ... in at least this share of the frames.
        min_area: an object with fewer visible pixels in a frame counts as absent there.
    """

    classes: tuple[str, ...] = ("star", "ring", "angle", "sickle")
    objects: tuple[int, int] = (1, 3)
    size: tuple[float, float] = (0.30, 0.58)
    crowding: float = 0.75
    travel: tuple[float, float] = (0.0, 0.45)
    sway: tuple[float, float] = (0.0, 0.06)
    spin_share: float = 0.5
    spin: tuple[float, float] = (0.02, 0.15)
    scale_share: float = 0.4
    scale: tuple[float, float] = (1.1, 1.5)
    leave_share: float = 0.2
    twins_share: float = 0.25
    camera_share: float = 0.5
    camera: tuple[float, float] = (0.004, 0.02)
    distractors: tuple[int, int] = (1, 3)
    decoy_share: float = 0.15
    occluders: tuple[int, int] = (0, 1)
    faint_share: float = 0.3
    faint: tuple[float, float] = (0.3, 0.65)
    hue_spread: float = 0.03
    contrast: tuple[float, float] = (0.05, 0.35)
    grain: tuple[float, float] = (0.0, 6.0)
    noise: float = 3.0
    min_visible: float = 0.5
    min_frames: float = 0.5
    min_area: int = 24

    def __post_init__(self) -> None:
        known = [category.name for category in CLIP_CATEGORIES]
        if not self.classes or set(self.classes) - set(known):
            raise ValueError(f"classes must be some of {', '.join(known)}, got {self.classes!r}")
        for name in (item.name for item in fields(self) if item.name != "classes"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                if len(value) != 2 or not 0 <= value[0] <= value[1]:
                    raise ValueError(f"{name} must be 0 <= lowest <= highest, got {value!r}")
            elif value < 0 or (name.endswith("_share") and value > 1):
                raise ValueError(f"{name} must be at least 0, a share at most 1, got {value!r}")
