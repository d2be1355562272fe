import numpy as np
import pycocotools.mask as mask_util
import pytest

from msr_d2.benchmark.track_evaluation import HEADER, MIXES, make_videos, rows, ways
from msr_d2.evaluation.ytvis_eval import evaluate_ytvis


@pytest.fixture(scope="module", params=MIXES, ids=lambda x: x.name)
def data(request):
    return make_videos(request.param, videos=3, length=7, size=(90, 160))


def test_the_timed_functions_return_the_same_bits(data):
    pairs, areas = ways(*data)["pairs"]()
    for name, least in (("all", 0), ("needed", 0.5)):
        overlaps = ways(*data)[name]()
        ious = {}
        for cell in overlaps.cells:
            for d, row in zip(cell.detections.tolist(), cell.ious.tolist()):
                ious.update({(d, g): x for g, x in zip(cell.truths.tolist(), row)})
        assert ious.keys() == pairs.keys()
        assert {k: v for k, v in ious.items() if v >= least} == {
            k: v for k, v in pairs.items() if v >= least
        }
        assert overlaps.det_area.tolist() == areas


def test_the_made_videos_are_worth_an_evaluation(data):
    ground_truth, results = data
    areas = [mask_util.area(rle) / (90 * 160) for x in results for rle in x["segmentations"] if rle]
    assert 0.02 < np.median(areas) < 0.2 and max(areas) < 0.6
    ious = np.array(list(ways(*data)["pairs"]()[0].values()))
    assert (ious == 0).any() and (ious > 0.5).any() and ((ious > 0) & (ious < 0.5)).any()
    assert 10 < evaluate_ytvis(ground_truth, results, "segm")["AP50"] < 100


def test_rows():
    table = rows(videos=1, length=4, sizes=((45, 80),), repeats=1)
    assert [len(line) for line in table] == [len(HEADER)] * len(MIXES)
    assert all(float(x) > 0 for line in table for x in line[1:])
