import json

import numpy as np
import pycocotools.mask as mask_util

from msr_d2.layers.run_lengths import text_rle


def test_json_holds_the_same_mask():
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert isinstance(rle["counts"], bytes)
    rle["size"] = tuple(np.int64(side) for side in rle["size"])
    text = text_rle(rle)
    assert (mask_util.decode(json.loads(json.dumps(text))) == mask).all()
    assert text["size"] == [5, 7] and isinstance(rle["counts"], bytes)
    assert text_rle(text) is text


def test_other_forms_are_kept():
    uncompressed = {"size": [2, 2], "counts": [1, 3]}
    assert text_rle(uncompressed) is uncompressed and text_rle(None) is None
