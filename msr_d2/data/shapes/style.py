"""The knobs of the shapes set."""

from __future__ import annotations

from dataclasses import dataclass, field


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
