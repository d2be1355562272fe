"""Run lengths of masks in the forms that libraries and files want."""

from __future__ import annotations


def text_rle(rle: dict | None) -> dict | None:
    """A compressed run length that json can hold.

    Args:
        rle: ``{"size": [height, width], "counts"}`` with counts as bytes, as pycocotools makes
            them; None, and counts in another form, are returned as they are.
    """
    if rle is None or not isinstance(rle["counts"], bytes):
        return rle
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
