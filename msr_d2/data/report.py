"""A summary of what was left out of a data set, printed once."""

from __future__ import annotations

import logging
from collections import defaultdict

logger = logging.getLogger(__name__)

_EXAMPLES = 5  # annotations named per reason


class SkipReport:
    """Collects annotations that cannot be used, by reason."""

    def __init__(self, name: str):
        """
        Args:
            name: of the data set.
        """
        self._name = name
        self._skipped: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, annotation: dict, record: dict) -> None:
        """Note that `annotation` of the image `record` is left out."""
        self._skipped[reason].append(f"{annotation.get('id', '?')} ({record['file_name']})")

    def __len__(self) -> int:
        return sum(len(names) for names in self._skipped.values())

    @property
    def counts(self) -> dict[str, int]:
        """Number of annotations left out, by reason."""
        return {reason: len(names) for reason, names in self._skipped.items()}

    def log(self, cure: str) -> None:
        """Print one warning with counts and the first annotations of each reason, if any."""
        if not self._skipped:
            return
        lines = [f"{len(self)} annotations of dataset '{self._name}' are left out. {cure}"]
        for reason, names in self._skipped.items():
            shown = ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
            lines.append(f"  {reason}: {len(names)}; annotation {shown}")
        logger.warning("\n".join(lines))
