"""Settings of the colour edges and of the matches between frames."""

from __future__ import annotations

from dataclasses import dataclass

from ..layers.patch_matching import METRICS, window_offsets

GRID = "grid3x3_dil3"
CANDIDATES = ("dense", GRID)
THRESHOLDS = ("distance", "similarity")
COLORS = ("lab", "rgb")
TUBES = ("cyclic", "all", "dense")
NORMALISERS = ("matches", "hw")
OUTSIDE = ("invalid", "black")


@dataclass(frozen=True)
class PairwiseSettings:
    """``MODEL.MASK_FREE.PAIRWISE``: which neighbours of a frame count as the same object."""

    size: int = 3
    dilation: int = 2
    color_threshold: float = 0.3
    theta: float = 0.5
    warmup_iters: int = 0
    padding_gate: bool = False

    def __post_init__(self):
        name = "MODEL.MASK_FREE.PAIRWISE"
        _check_odd(f"{name}.SIZE", self.size, least=3)
        _check_least(f"{name}.DILATION", self.dilation, 1)
        _check_least(f"{name}.THETA", self.theta, 0)
        _check_least(f"{name}.WARMUP_ITERS", self.warmup_iters, 0)
        _check_share(f"{name}.COLOR_THRESHOLD", self.color_threshold)

    @classmethod
    def from_config(cls, node) -> PairwiseSettings:
        """Read the node ``MODEL.MASK_FREE.PAIRWISE``."""
        return _from_node(cls, node)


@dataclass(frozen=True)
class TemporalSettings:
    """``MODEL.MASK_FREE.TEMPORAL``: how cells of different frames are matched.

    ``distance`` is the D of the paper, Sec. 3.2, on the Euclidean norm of the 3 N^2 colour values
    of a patch, with LAB divided by 100 (RGB by 255). D = 0.05 is 5.0 in raw LAB, next to the 5.991
    that the official rule exp(-d / 2) >= 0.05 on raw LAB comes to. The norm grows with the patch
    and depends on the metric: to compare these, scale D along, by N / 3 for other patch sizes, and
    by sqrt(27) for "l1" with N = 3, as the ablations of Tables 5 and 7 do.
    """

    candidates: str = "dense"
    radius: int = 5
    patch_size: int = 3
    top_k: int = 5
    threshold: str = "distance"
    distance: float = 0.05
    similarity: float = 0.05
    color: str = "lab"
    metric: str = "l2"
    tube: str = "cyclic"
    normalise: str = "matches"
    warmup_iters: int = 200

    def __post_init__(self):
        name = "MODEL.MASK_FREE.TEMPORAL"
        check_choice(f"{name}.CANDIDATES", self.candidates, CANDIDATES)
        check_choice(f"{name}.THRESHOLD", self.threshold, THRESHOLDS)
        check_choice(f"{name}.COLOR", self.color, COLORS)
        check_choice(f"{name}.METRIC", self.metric, METRICS)
        check_choice(f"{name}.TUBE", self.tube, TUBES)
        check_choice(f"{name}.NORMALISE", self.normalise, NORMALISERS)
        _check_odd(f"{name}.PATCH_SIZE", self.patch_size, least=1)
        _check_least(f"{name}.RADIUS", self.radius, 0)
        _check_least(f"{name}.TOP_K", self.top_k, 1)
        _check_least(f"{name}.DISTANCE", self.distance, 0)
        _check_least(f"{name}.WARMUP_ITERS", self.warmup_iters, 0)
        _check_share(f"{name}.SIMILARITY", self.similarity)

    @classmethod
    def from_config(cls, node) -> TemporalSettings:
        """Read the node ``MODEL.MASK_FREE.TEMPORAL``."""
        return _from_node(cls, node)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(dy, dx) of the candidates in cells of the mask grid."""
        return window_offsets(1, 3) if self.candidates == GRID else window_offsets(self.radius)


def _from_node(cls, node):
    return cls(**{name: node[name.upper()] for name in cls.__dataclass_fields__})


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """A ``ValueError`` with the full name of the key if its value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _check_odd(name: str, value: int, least: int) -> None:
    if value < least or value % 2 != 1:
        raise ValueError(f"{name} is {value}; it must be an odd number of at least {least}")


def _check_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
