"""What a conversion did with each weight."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import torch


class IncompleteConversionError(ValueError):
    """A converted checkpoint would leave a part of the model at random values."""


@dataclass
class ConversionReport:
    """The result of :func:`msr_d2.checkpoint.convert_state_dict`.

    Attributes:
        source: code base that the weights come from.
        state_dict: the converted weights; every name and shape is one of the model's.
        matched: name in the model -> name in the source.
        filled: names in the model whose value follows from the others and was filled in.
        missing: names in the model that the source has no weight for.
        allowed_missing: the same, but allowed to be missing.
        shape_mismatch: (name in the model, shape after conversion, shape in the model).
        unused: names in the source that the model has no place for.
        surplus: those of `unused` that belong to a stage or head that the model has, but with fewer
            layers: the checkpoint is of another model.
        dropped: names in the source that no model of detectron2 needs.
        notes: remarks for the user.
    """

    source: str
    state_dict: dict[str, torch.Tensor] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)
    filled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    allowed_missing: list[str] = field(default_factory=list)
    shape_mismatch: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Refuse a conversion that leaves a part of the model random, or takes only half a part.

        Raises:
            IncompleteConversionError: (a ``ValueError``) names the weights and the cures.
        """
        if not self.missing and not self.shape_mismatch:
            self._check_surplus()
            return
        problems = [f"{name}: not in the checkpoint" for name in self.missing] + [
            f"{name}: {old} in the checkpoint, {new} in the model"
            for name, old, new in self.shape_mismatch
        ]
        raise IncompleteConversionError(
            f"{len(problems)} of {self.num_model_weights} weights of the model would stay random:"
            + _first(problems)
            + "\nCure: choose the config of the model that was trained (backbone, FPN or C4, "
            "MODEL.ROI_HEADS.NUM_CLASSES, MODEL.MASKIOU_ON). If a part shall be trained anew, say "
            "so with --allow-missing PREFIX."
        )

    def _check_surplus(self) -> None:
        if self.surplus:
            raise IncompleteConversionError(
                f"the checkpoint is of a model with more layers: {len(self.surplus)} weights have "
                "no place in stages and heads that the model has too:"
                + _first(self.surplus)
                + "\nCure: choose the config of the model that was trained (MODEL.RESNETS.DEPTH, "
                "deformable convolutions, number of layers in the heads)."
            )

    @property
    def num_model_weights(self) -> int:
        """How many weights the model has."""
        lists = (self.matched, self.filled, self.missing, self.allowed_missing, self.shape_mismatch)
        return sum(len(names) for names in lists)

    def format(self, verbose: bool = False) -> str:
        """The report as a table of counts for each part of the model, and lists of the rest.

        Args:
            verbose: list every matched weight with its name in the source as well.
        """
        blocks = [_count_table(self)]
        if verbose:
            pairs = [f"{old} -> {new}" for new, old in sorted(self.matched.items())]
            blocks.append(_block("matched", pairs))
        mismatch = [f"{name}: {old}, the model has {new}" for name, old, new in self.shape_mismatch]
        blocks += [
            _block("missing: in the model, not in the checkpoint", self.missing),
            _block("of another shape", mismatch),
            _block("missing, but allowed: stay at their initial values", self.allowed_missing),
            _block("filled in", self.filled),
            _block("unused: in the checkpoint, not in the model", self.unused),
            _block("dropped: needed by no model of detectron2", self.dropped),
            _block("notes", self.notes),
        ]
        return "\n\n".join(block for block in blocks if block)


def _first(lines: list[str], limit: int = 20) -> str:
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "".join(f"\n  {line}" for line in [*lines[:limit], *more])


def _block(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return f"{title} ({len(lines)})\n" + "\n".join(f"  {line}" for line in lines)


def _part(name: str) -> str:
    """The part of the model that a weight belongs to: its first two names, the FPN as one."""
    return re.sub(r"_(lateral|output)\d+$", "", ".".join(name.split(".")[:2]))


def _count_table(report: ConversionReport) -> str:
    columns = {
        "matched": report.matched,
        "filled": report.filled,
        "missing": [*report.missing, *report.allowed_missing],
        "shape": [name for name, _, _ in report.shape_mismatch],
    }
    counts = {title: Counter(map(_part, names)) for title, names in columns.items()}
    parts = sorted(set().union(*counts.values()))
    width = max(map(len, [*parts, "part of the model"]))
    lines = [f"{'part of the model':{width}}" + "".join(f"{title:>9}" for title in columns)]
    for part in parts:
        lines.append(f"{part:{width}}" + "".join(f"{counts[c][part]:9}" for c in columns))
    totals = "".join(f"{sum(counts[c].values()):9}" for c in columns)
    return "\n".join([*lines, f"{'total':{width}}{totals}"])
