"""Where a MOT sequence lies on disk and what its ``seqinfo.ini`` says."""

from __future__ import annotations

import configparser
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import DatasetError

_INFO = "seqinfo.ini"


@dataclass(frozen=True)
class MotSequence:
    """A sequence of frames.

    Attributes:
        name: of the sequence; ``file_names`` start with it.
        ground_truth: the text file with the boxes.
        height, width: pixels.
        length: frames; 0 where it is not known yet.
        folder: of the frames, inside the sequence's folder; may be empty.
        extension: of the frames, with its dot.
    """

    name: str
    ground_truth: Path
    height: int
    width: int
    length: int
    folder: str = "img1"
    extension: str = ".jpg"

    def file_names(self) -> list[str]:
        """Paths of the frames, relative to the folder that holds the sequences."""
        folder = f"{self.name}/{self.folder}" if self.folder else self.name
        return [f"{folder}/{i + 1:06d}{self.extension}" for i in range(self.length)]

    def with_length(self, last: int) -> MotSequence:
        """The sequence with its length known.

        Args:
            last: number of the last frame that has a box, from 1.

        Raises:
            DatasetError: if there are boxes after the end, or nothing says how long it is.
        """
        if last > self.length > 0:
            raise DatasetError(
                f"'{self.ground_truth}' has a box in frame {last}, but the sequence has "
                f"{self.length} frames ({_INFO}: seqLength, or the length that was given)."
            )
        if self.length == 0 and last == 0:
            raise DatasetError(f"'{self.ground_truth}' has no boxes and no length. Give a length.")
        return replace(self, length=self.length or last)


def find_sequences(
    source: Path, size: tuple[int, int] | None = None, length: int | None = None
) -> list[MotSequence]:
    """The sequences of a folder or of a ``gt.txt``, see ``mot_to_ytvis``.

    Raises:
        DatasetError: if there are none, or the size of the frames is not known.
    """
    if source.is_dir():
        return _sequences_of_folder(source)
    if not source.is_file():
        raise DatasetError(f"'{source}' does not exist. Give a sequence folder or a gt.txt.")
    for folder in (source.parent, source.parent.parent):
        if (folder / _INFO).is_file():
            return [replace(_read_info(folder), ground_truth=source)]
    if size is None:
        raise DatasetError(
            f"'{source}' has no {_INFO} in its folder or the one above, so the size of the frames "
            "is not known. Give it: size=(height, width), on the command line --size HEIGHT WIDTH. "
            "If it is no ground truth, leave it out: give the folder itself instead of all that is "
            "in it, or a pattern of the sequences, as MOT17/train/*-FRCNN."
        )
    name = source.stem if source.stem not in ("gt", "det") else source.resolve().parent.name
    return [MotSequence(name, source, *size, length or 0, folder="")]


def _sequences_of_folder(folder: Path) -> list[MotSequence]:
    if (folder / _INFO).is_file():
        return [_read_info(folder)]
    found = sorted(path.parent for path in folder.glob(f"*/{_INFO}"))
    if not found:
        raise DatasetError(
            f"'{folder}' has no {_INFO}, nor has any folder in it. Give the folder of a sequence, "
            "of several, or a gt.txt, and leave other folders out."
        )
    return [_read_info(path) for path in found]


def _read_info(folder: Path) -> MotSequence:
    path, parser = folder / _INFO, configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        info = parser["Sequence"]
        numbers = [int(info[key]) for key in ("imHeight", "imWidth", "seqLength")]
    except (configparser.Error, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())  # configparser's messages have several lines
        raise DatasetError(
            f"'{path}' cannot be used ({reason}); it needs a section [Sequence] with the integers "
            "imHeight, imWidth and seqLength."
        ) from error
    if min(numbers) < 1:
        raise DatasetError(
            f"'{path}': imHeight, imWidth and seqLength are {numbers}, not positive."
        )
    extension = info.get("imExt", ".jpg")
    return MotSequence(
        folder.resolve().name,
        folder / "gt" / "gt.txt",
        *numbers,
        info.get("imDir", "img1"),
        extension,
    )
