"""The counter of bad images, alone and in the workers of a loader."""

import logging
import re

import pytest
from tiny_coco import write_set

from msr_d2.data import TooManyBadImagesError, build_train_loader, register_from_config
from msr_d2.data.bad_images import BadImages
from msr_d2.testing import tiny_cfg

ERROR = OSError("cut off")


def test_a_file_counts_once(caplog):
    bad = BadImages(1)
    for _ in range(3):
        bad.add("a.png", ERROR)
    assert len(caplog.records) == 1
    assert "Skipped (1 of at most 1): cannot use image 'a.png' (OSError: cut off)" in caplog.text


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_one_more_than_allowed_stops(limit):
    bad = BadImages(limit)
    for i in range(limit):
        bad.add(f"{i}.png", ERROR)
    message = f"{limit + 1} image files cannot be used; DATALOADER.MAX_BAD_IMAGES allows {limit}"
    with pytest.raises(TooManyBadImagesError, match=re.escape(message)) as error:
        bad.add("last.png", ERROR)
    assert "'last.png'" in str(error.value)
    with pytest.raises(TooManyBadImagesError):  # and keeps stopping
        bad.add("next.png", ERROR)


def test_negative_limit():
    with pytest.raises(ValueError, match="MAX_BAD_IMAGES must be >= 0, got -1"):
        BadImages(-1)


def loader_of(folder, bad, limit, workers, num_images=6):
    entry = write_set(folder, num_images)
    for number in bad:
        (folder / f"{number}.png").write_bytes(b"not an image")
    cfg = tiny_cfg(opts=["DATALOADER.NUM_WORKERS", workers, "SEED", 0, "SOLVER.IMS_PER_BATCH", 2])
    cfg.DATALOADER.MAX_BAD_IMAGES = limit
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN = [entry], (entry[0],)
    register_from_config(cfg)
    return build_train_loader(cfg)


def batches(loader, number):
    return [[item["image_id"] for item in batch] for batch, _ in zip(loader, range(number))]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_goes_on_with_other_images(tmp_path, workers, caplog):
    with caplog.at_level(logging.WARNING):
        ids = batches(loader_of(tmp_path, [2, 5], 2, workers), 12)
    assert all(len(batch) == 2 for batch in ids)
    assert {i for batch in ids for i in batch} == {1, 3, 4, 6}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_stops_at_too_many(tmp_path, workers):
    loader = loader_of(tmp_path, [2, 5], 1, workers)
    with pytest.raises(TooManyBadImagesError, match="2 image files cannot be used.*allows 1"):
        batches(loader, 12)


def test_nothing_but_bad_images(tmp_path):
    with pytest.raises(ValueError, match="not a single image of the training set can be used"):
        batches(loader_of(tmp_path, [1, 2], 20, 0, num_images=2), 1)
