"""The scripts as users start them: plain, killed and resumed, and under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_coco import annotation, write_json, write_set

from msr_d2.testing import tiny_cfg


@pytest.fixture
def job(tmp_path, repository):
    """A folder with data and config, and functions to run scripts on them."""
    return Job(tmp_path, repository)


class Job:
    def __init__(self, folder, repository):
        self.folder, self.repository = folder, repository
        self.data = write_set(folder / "data", num_images=4)
        cfg = tiny_cfg()
        cfg.DATASETS.REGISTER = [self.data]
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (self.data[0],)
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2, 8, 2
        cfg.SEED = 5
        (folder / "config.yaml").write_text(cfg.dump())

    def command(self, *words, launcher=(sys.executable,), script="train_net.py"):
        return [*launcher, str(self.repository / "scripts" / script), *words]

    def start(self, command):
        """The process and the file of its output (a pipe nobody reads would block it)."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.repository)}
        log = self.folder / "log.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        return process, log

    def run(self, command):
        process, log = self.start(command)
        return process.wait(timeout=300), log.read_text()

    def train(self, out, *opts, resume=False, **more):
        words = ["--config-file", str(self.folder / "config.yaml"), *["--resume"] * resume]
        return self.command(*words, "OUTPUT_DIR", str(self.folder / out), *opts, **more)

    def weights(self, out):
        path = self.folder / out / "model_final.pth"
        return torch.load(path, weights_only=True)["model"]


def test_killed_and_resumed_equals_uninterrupted(job):
    code, output = job.run(job.train("whole"))
    assert code == 0, output
    killed, log = job.start(job.train("killed"))
    _wait_for(job.folder / "killed" / "model_0000003.pth", killed, log)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    if (job.folder / "killed" / "model_final.pth").exists():
        pytest.skip("the run was over before it could be killed")
    code, output = job.run(job.train("killed", resume=True))
    assert code == 0 and "Starting training from iteration" in output, output
    first, second = job.weights("whole"), job.weights("killed")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def _wait_for(path, process, log):
    while not path.exists():
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)


def test_two_processes_under_torchrun(job):
    """Two images of four have no objects, so a process without any comes up."""
    boxes = [annotation(1, 1, (10, 10, 50, 50)), annotation(2, 2, (30, 5, 60, 40), category_id=2)]
    write_json(job.folder / "data", 4, boxes)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
    launcher = (*torchrun, "--master_port", "0", "--rdzv_backend", "c10d")
    keep = ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False", "SOLVER.MAX_ITER", "4"]
    code, output = job.run(job.train("two", *keep, launcher=launcher))
    assert code == 0, output
    assert "World size: 2" in output
    results = json.loads((job.folder / "two/inference/coco_instances_results.json").read_text())
    assert {entry["image_id"] for entry in results} == {1, 2, 3, 4}
    assert job.weights("two")
    # The two files that evaluate.py reads give the same numbers without a model.
    gt, found = job.data[1], str(job.folder / "two/inference/coco_instances_results.json")
    numbers = job.folder / "numbers.json"
    words = ["--gt", gt, "--results", found, "--output", str(numbers)]
    code, output = job.run(job.command(*words, script="evaluate.py"))
    assert code == 0 and "segm_class_score" in output, output
    (evaluated,) = json.loads(numbers.read_text()).values()
    logged = [json.loads(x) for x in (job.folder / "two/metrics.json").read_text().splitlines()]
    assert logged[-1]["bbox/AP"] == pytest.approx(evaluated["bbox"]["AP"])


def test_evaluate_reports_missing_files(job):
    words = ["--gt", "none.json", "--results", "none_either.json"]
    code, output = job.run(job.command(*words, script="evaluate.py"))
    assert code == 2 and "none" in output and "Traceback" not in output
