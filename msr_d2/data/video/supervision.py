"""What a data set is trained with: boxes or masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from detectron2.config import CfgNode

KINDS = ("box", "mask")


@dataclass(frozen=True)
class Supervision:
    """The kind of ground truth of each data set, "box" or "mask".

    Attributes:
        default: for all data sets that are not named in `exceptions`.
        exceptions: by name of the data set.
    """

    default: str = "box"
    exceptions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        """
        Raises:
            ValueError: for another kind than "box" and "mask".
        """
        _check_kind("MODEL.MASK_FREE.SUPERVISION", self.default)
        for name, kind in self.exceptions.items():
            _check_kind(f"MODEL.MASK_FREE.DATASET_SUPERVISION for '{name}'", kind)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Supervision:
        """From MODEL.MASK_FREE.SUPERVISION and DATASET_SUPERVISION.

        Raises:
            ValueError: for malformed values.
        """
        free = cfg.MODEL.MASK_FREE
        exceptions = dict(_check_entry(entry) for entry in free.DATASET_SUPERVISION)
        return cls(free.SUPERVISION, exceptions)

    def check_names(self, names: Sequence[str]) -> None:
        """Stop where an exception names a data set that is not among `names`, as after a typo.

        Raises:
            ValueError: names it.
        """
        unknown = sorted(set(self.exceptions) - set(names))
        if unknown:
            raise ValueError(
                f"MODEL.MASK_FREE.DATASET_SUPERVISION names {unknown}, but DATASETS.TRAIN is "
                f"{list(names)}; correct or remove these entries."
            )

    def of(self, source: str) -> str:
        """The kind of the data set `source`."""
        return self.exceptions.get(source, self.default)


def _check_entry(entry: object) -> Sequence[str]:
    is_pair = isinstance(entry, (list, tuple)) and len(entry) == 2
    if not is_pair or not all(isinstance(part, str) for part in entry):
        raise ValueError(
            "MODEL.MASK_FREE.DATASET_SUPERVISION is a list of [name of a data set, 'box' or "
            f"'mask']; got {entry!r}."
        )
    return entry


def _check_kind(where: str, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{where} is {kind!r}; it must be 'box' or 'mask'.")
