"""Classes of the public video data sets, and how classes of one set become those of another."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

# In the order of their ids, which are 1..N.
YTVIS_2019 = tuple(
    "person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat "
    "cow fish train horse turtle bear motorbike giraffe leopard fox deer owl surfboard airplane "
    "truck zebra tiger elephant snowboard boat shark mouse frog eagle earless_seal "
    "tennis_racket".split()
)
YTVIS_2021 = tuple(
    "airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox "
    "frog giant_panda giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit "
    "shark skateboard snake snowboard squirrel surfboard tennis_racket tiger train truck turtle "
    "whale zebra".split()
)
# "Vehical" as in the files.
OVIS = tuple(
    "Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda Lizard "
    "Parrot Monkey Rabbit Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehical".split()
)

# COCO category id: category id of the video set. Several classes may become one.
COCO_TO_YTVIS_2019 = {
    **{1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18, 21: 15},
    **{22: 32, 23: 20, 24: 30, 25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40},
}
COCO_TO_YTVIS_2021 = {
    **{1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9, 19: 19, 21: 7},
    **{22: 12, 23: 2, 24: 40, 25: 18, 34: 14, 35: 31, 36: 31, 41: 29, 42: 33, 43: 34},
}
COCO_TO_OVIS = {
    **{1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 17: 3, 18: 4, 19: 5, 20: 6, 21: 7},
    **{22: 8, 23: 9, 24: 10, 25: 11},
}
_FROM_COCO = {
    YTVIS_2019: COCO_TO_YTVIS_2019,
    YTVIS_2021: COCO_TO_YTVIS_2021,
    OVIS: COCO_TO_OVIS,
}
_COCO_IDS = {x["name"]: x["id"] for x in COCO_CATEGORIES if x["isthing"]}


def map_classes(source: Sequence[str], target: Sequence[str]) -> dict[int, int]:
    """Which class of `target` a class of `source` becomes, as contiguous ids.

    From classes that are all of COCO to those of YouTube-VIS 2019, 2021 or OVIS the family's table
    is used; otherwise classes of the same name correspond, whatever their case and whether words
    are separated by a space, "_" or "-".

    Args:
        source, target: class names in the order of their contiguous ids.

    Returns:
        source id: target id; classes without a counterpart are left out.
    """
    table = _FROM_COCO.get(tuple(target))
    if table is not None and all(name in _COCO_IDS for name in source):
        categories = [table.get(_COCO_IDS[name]) for name in source]
        return {i: category - 1 for i, category in enumerate(categories) if category is not None}
    ids = {_normalize(name): i for i, name in enumerate(target)}
    names = [_normalize(name) for name in source]
    return {i: ids[name] for i, name in enumerate(names) if name in ids}


def _normalize(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ").strip()
