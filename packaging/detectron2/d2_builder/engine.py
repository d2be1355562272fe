"""Exact text edits of source files: an edit matches as often as it says, or the build stops."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class EditError(ValueError):
    """An edit that does not fit the sources it was written for."""


@dataclass(frozen=True)
class Edit:
    """One replacement in one file.

    Attributes:
        file: path relative to the root of the sources, with forward slashes.
        old: the text to replace, matched exactly and at line ends as they are in the file.
        new: the text to put in its place.
        reason: why the edit is needed, for the people who read the table and the error.
        count: how often ``old`` occurs in the file; all occurrences are replaced.
    """

    file: str
    old: str
    new: str
    reason: str
    count: int = 1

    def apply(self, text: str) -> str:
        """Return ``text`` with all occurrences of ``old`` replaced.

        Raises:
            EditError: if ``old`` occurs more or less often than ``count`` times.
        """
        found = text.count(self.old)
        if found != self.count:
            raise EditError(
                f"{self.file}: expected {self.count} occurrence(s) of {self.old!r}, found {found} "
                f"(edit: {self.reason}). The sources are not the ones this edit was written for."
            )
        return text.replace(self.old, self.new)


def apply_edits(root: Path, edits: Iterable[Edit]) -> None:
    """Apply ``edits`` in order to the files under ``root``.

    Raises:
        EditError: if a file is missing or an edit does not match; the rest is not applied then.
    """
    for edit in edits:
        path = root / edit.file
        if not path.is_file():
            raise EditError(f"{edit.file}: no such file in the sources (edit: {edit.reason})")
        # As bytes: line ends stay as they are in the file, on any system.
        edited = edit.apply(path.read_bytes().decode("utf-8"))
        path.write_bytes(edited.encode("utf-8"))
