"""The stream of batches: complete, resumable, independent of the number of workers."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from tiny_coco import annotation, write_json, write_set

from msr_d2.data import DatasetError, build_test_loader, build_train_loader, register_from_config
from msr_d2.data.seeding import derive_seed, seeded
from msr_d2.data.train_loader import DrawnImages, TrainLoader
from msr_d2.testing import tiny_cfg


def sampler(size):
    from detectron2.data.samplers import TrainingSampler

    return lambda seed: TrainingSampler(size, seed=seed)


def toy(sizes, batch_size=2, seed=3, mapper=lambda record: record, **more):
    dicts = [{"number": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    return TrainLoader(dicts, mapper, sampler(len(sizes)), batch_size=batch_size, seed=seed, **more)


def numbers(loader, count):
    return [[item["number"] for item in batch] for batch in itertools.islice(loader, count)]


def test_every_epoch_has_every_image_once():
    loader = toy([(4, 4)] * 7, batch_size=7, aspect_ratio_grouping=False)
    for epoch in numbers(loader, 4):
        assert sorted(epoch) == list(range(7))


def test_batches_are_of_one_orientation():
    sizes = [(4, 8), (8, 4), (4, 4)] * 4
    wide = {i for i, (h, w) in enumerate(sizes) if w > h}
    batches = numbers(toy(sizes), 60)
    assert all(len(wide & set(batch)) in (0, 2) for batch in batches)
    counts = Counter(itertools.chain.from_iterable(batches))  # 120 draws of 12 images
    assert set(counts) == set(range(12)) and max(counts.values()) <= 12


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("start", [1, 5, 17])
def test_entering_later_gives_the_rest_of_the_stream(grouping, start):
    sizes = [(4, 8), (8, 4), (4, 8), (5, 5), (9, 3)]
    whole = numbers(toy(sizes, aspect_ratio_grouping=grouping), 30)
    loader = toy(sizes, aspect_ratio_grouping=grouping)
    loader.start_iter = start
    assert numbers(loader, 30 - start) == whole[start:]


def test_seed_may_be_set_until_the_first_batch():
    loader = toy([(4, 4)] * 9, seed=1)
    stream = iter(loader)
    loader.seed = 3
    got = [[item["number"] for item in next(stream)] for _ in range(3)]
    assert got == numbers(toy([(4, 4)] * 9, seed=3), 3) != numbers(toy([(4, 4)] * 9, seed=1), 3)


def draw(record):
    """A mapper whose output is what random augmentations would draw."""
    return {**record, "draws": [random.random(), np.random.rand(), float(torch.rand(1))]}


def draws(loader, count):
    return [item["draws"] for batch in itertools.islice(loader, count) for item in batch]


def test_a_bad_item_is_replaced_from_its_own_data_set():
    """Otherwise images of one set would take the share of another."""
    records = [{"number": i, "source": "ab"[i % 2]} for i in range(8)]
    bad = {1, 3, 6}

    def mapper(record):
        return None if record["number"] in bad else record

    images = DrawnImages(records, mapper, seed=0)
    assert [images[0, i]["number"] for i in range(8)] == [0, 5, 2, 5, 4, 5, 0, 7]
    bad.update((5, 7))
    assert images[9, 6]["number"] == 0
    with pytest.raises(DatasetError, match="training set 'b' can be used"):
        images[0, 3]


@pytest.mark.parametrize("workers", [1, 2])
def test_random_numbers_do_not_depend_on_workers_or_on_the_start(workers):
    whole = draws(toy([(4, 4)] * 3, mapper=draw), 8)
    loader = toy([(4, 4)] * 3, mapper=draw, num_workers=workers)
    loader.start_iter = 2
    assert draws(loader, 6) == whole[4:]
    assert len({tuple(d) for d in whole}) == len(whole)  # a new draw whenever an image comes again


def test_the_model_keeps_its_own_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draws(toy([(4, 4)] * 3, mapper=draw), 4)
    assert torch.equal(torch.rand(3), expected)


def test_seeded_restores_the_generators_after_an_error():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(1, 2):
        1 / 0  # noqa: B018
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_seeds_of_neighbours_differ():
    seeds = {derive_seed(seed, position) for seed in range(20) for position in range(50)}
    assert len(seeds) == 1000 and all(0 <= s < 2**31 for s in seeds)


def test_two_processes_share_the_stream(monkeypatch):
    from detectron2.utils import comm

    alone = toy([(4, 4)] * 6, batch_size=1, aspect_ratio_grouping=False)
    stream = [batch[0] for batch in itertools.islice(alone.batches(), 12)]
    shares = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: 2)
        share = toy([(4, 4)] * 6, batch_size=1, aspect_ratio_grouping=False)
        shares.append([batch[0] for batch in itertools.islice(share.batches(), 6)])
    assert sorted(shares[0] + shares[1]) == sorted(stream)
    assert [position for position, _ in shares[1]] == [1, 3, 5, 7, 9, 11]


def cfg_for(*entries, **keys):
    cfg = tiny_cfg(opts=["SOLVER.IMS_PER_BATCH", 2, "SEED", 1])
    cfg.DATASETS.REGISTER = list(entries)
    cfg.DATASETS.TRAIN = tuple(entry[0] for entry in entries)
    for key, value in keys.items():
        cfg.DATALOADER[key] = value
    register_from_config(cfg)
    return cfg


@pytest.mark.parametrize(
    "name", ["TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"]
)
def test_samplers_of_detectron2(tmp_path, name):
    keys = dict(SAMPLER_TRAIN=name, REPEAT_THRESHOLD=0.9, RANDOM_SUBSET_RATIO=0.5)
    cfg = cfg_for(write_set(tmp_path, 6), **keys)
    ids = [[x["image_id"] for x in b] for b in itertools.islice(build_train_loader(cfg), 20)]
    again = build_train_loader(cfg)
    again.start_iter = 7
    assert [[x["image_id"] for x in b] for b in itertools.islice(again, 13)] == ids[7:]
    assert len({i for batch in ids for i in batch}) == (3 if "Subset" in name else 6)


def test_unknown_sampler(tmp_path):
    with pytest.raises(ValueError, match="SAMPLER_TRAIN is 'Mine'; known are TrainingSampler"):
        build_train_loader(cfg_for(write_set(tmp_path), SAMPLER_TRAIN="Mine"))


def test_batch_that_cannot_be_divided(tmp_path, monkeypatch):
    from detectron2.utils import comm

    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 2; with 3 processes.*multiple of 3"):
        build_train_loader(cfg_for(write_set(tmp_path)))


def test_two_training_sets(tmp_path):
    cfg = cfg_for(write_set(tmp_path / "a", 2), write_set(tmp_path / "b", 2))
    files = {x["file_name"] for b in itertools.islice(build_train_loader(cfg), 2) for x in b}
    assert len(files) == 4


@pytest.mark.parametrize("keep", [True, False])
def test_images_without_usable_objects(tmp_path, keep):
    entry = write_set(tmp_path, 3)
    box = (1, 1, 20, 20)
    annotations = [
        annotation(1, 1, box),
        annotation(2, 2, box, iscrowd=1, segmentation={"size": [64, 96], "counts": [6144]}),
        annotation(3, 3, (5, 5, 5, 9)),
    ]
    write_json(tmp_path, 3, annotations)
    cfg = cfg_for(entry, FILTER_EMPTY_ANNOTATIONS=not keep)
    items = [x for b in itertools.islice(build_train_loader(cfg), 6) for x in b]
    assert {x["image_id"] for x in items} == ({1, 2, 3} if keep else {1})
    assert all(len(x["instances"]) == (x["image_id"] == 1) for x in items)


def test_nothing_but_crowd_explains_itself(tmp_path):
    entry = write_set(tmp_path, 1)
    write_json(tmp_path, 1, [annotation(1, 1, (1, 1, 20, 20), iscrowd=1)])
    with pytest.raises(DatasetError, match="No valid data found.*iscrowd.*FILTER_EMPTY"):
        build_train_loader(cfg_for(entry))


def test_nothing_usable_explains_itself(tmp_path):
    entry = write_set(tmp_path, 1)
    write_json(tmp_path, 1, [annotation(1, 1, (5, 5, 5, 9))])
    with pytest.raises(DatasetError, match="every annotation was left out"):
        build_train_loader(cfg_for(entry))


def test_no_training_set():
    with pytest.raises(DatasetError, match="DATASETS.TRAIN is empty"):
        build_train_loader(tiny_cfg(opts=["DATASETS.TRAIN", ()]))


def test_sets_that_detectron2_users_register_themselves(tmp_path):
    """Their dicts have no annotation ids, and masks that were never checked."""
    from detectron2.data.datasets import load_coco_json

    _, path, images = write_set(tmp_path, 4)
    DatasetCatalog.register("foreign", lambda: load_coco_json(path, images, "foreign"))
    MetadataCatalog.get("foreign").set(evaluator_type="coco", json_file=path)
    cfg = tiny_cfg(opts=["DATASETS.TRAIN", ("foreign",), "SOLVER.IMS_PER_BATCH", 4])
    batch = next(iter(build_train_loader(cfg)))
    assert all(len(x["instances"]) >= 1 and x["instances"].has("gt_masks") for x in batch)


def test_test_loader_has_every_image_in_order(tmp_path):
    entry = write_set(tmp_path, 5)
    cfg = cfg_for(entry)
    loader = build_test_loader(cfg, entry[0])
    assert [x["image_id"] for batch in loader for x in batch] == [1, 2, 3, 4, 5]


def test_test_loader_stops_at_a_bad_image(tmp_path):
    entry = write_set(tmp_path, 3)
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="2.png"):
        list(build_test_loader(cfg_for(entry), entry[0]))


def test_real_data(shared_data):
    from msr_d2.data import register_coco_tiny

    train, _ = register_coco_tiny(str(shared_data / "coco_tiny"))
    cfg = tiny_cfg(opts=["DATASETS.TRAIN", (train,), "SOLVER.IMS_PER_BATCH", 4])
    cfg.INPUT.CROP.ENABLED = True
    for batch in itertools.islice(build_train_loader(cfg), 10):
        for x in batch:
            assert len(x["instances"].gt_masks) == len(x["instances"])
