"""Both evaluators in two real processes, each of which has seen a part of the data."""

import json
import os
import subprocess
import sys

import pytest
import toy_coco
import toy_ytvis

from msr_d2.evaluation import MaskScoringCOCOEvaluator, YTVISEvaluator

WORKER = """
import json, sys
from pathlib import Path

import toy_coco, toy_ytvis
import torch.distributed as dist
from detectron2.utils import comm
from msr_d2.evaluation import MaskScoringCOCOEvaluator, YTVISEvaluator

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
results = {}

gt, predictions = toy_coco.random_scene(8)
evaluator = MaskScoringCOCOEvaluator(toy_coco.register(gt, folder))
evaluator.reset()
for i in range(5) if rank == 0 else range(5, len(predictions)):
    evaluator.process([{"image_id": i + 1}], [{"instances": predictions[i]}])
results["coco"] = evaluator.evaluate()

gt, tracks = toy_ytvis.random_videos(1)
outputs = toy_ytvis.to_outputs(gt, tracks)
both = dict(tasks=("segm", "bbox"), output_dir=str(folder / "out"))
# The first one's videos are split; both see the fourth of them, as padded shards do. Of the second
# data set the main process sees nothing, and its videos come in another order.
shards = {"ytvis": [range(4), range(3, len(outputs))], "late": [[], range(len(outputs))[::-1]]}
for name, shard in shards.items():
    evaluator = YTVISEvaluator(toy_ytvis.register(gt, folder), **both)
    evaluator.reset()
    for i in shard[rank]:
        evaluator.process([{"video_id": i + 1}], [outputs[i]])
    results[name] = evaluator.evaluate()
    if rank == 0:
        (folder / "out" / "results.json").rename(folder / f"{name}.json")

(folder / f"rank{rank}.json").write_text(json.dumps(results))
"""


def test_two_processes(tmp_path, repository):
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [x.communicate(timeout=300)[1] for x in workers]
    assert [x.returncode for x in workers] == [0, 0], errors

    gt, predictions = toy_coco.random_scene(8)
    coco = MaskScoringCOCOEvaluator(toy_coco.register(gt, tmp_path))
    gt, tracks = toy_ytvis.random_videos(1)
    ytvis = YTVISEvaluator(
        toy_ytvis.register(gt, tmp_path), tasks=("segm", "bbox"), output_dir=str(tmp_path / "one")
    )
    of_videos = toy_ytvis.evaluate(ytvis, toy_ytvis.to_outputs(gt, tracks))
    expected = {
        "coco": toy_coco.evaluate(coco, predictions),
        "ytvis": of_videos,
        "late": of_videos,
    }
    result = json.loads((tmp_path / "rank0.json").read_text())
    for name, tasks in expected.items():
        assert result[name].keys() == tasks.keys()
        for task, numbers in tasks.items():
            assert result[name][task] == pytest.approx(numbers, rel=0, abs=0, nan_ok=True)
    # Only the main process has results.
    empty = {"coco": {}, "ytvis": {}, "late": {}}
    assert json.loads((tmp_path / "rank1.json").read_text()) == empty
    # The file for a server does not depend on who saw what.
    written = (tmp_path / "one" / "results.json").read_text()
    assert (tmp_path / "ytvis.json").read_text() == written == (tmp_path / "late.json").read_text()
