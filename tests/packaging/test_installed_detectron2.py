"""The installed detectron2 does what msr_d2 and its users need of it.

Most tests hold for any detectron2. Those marked ``pure`` are about the wheel of
``packaging/detectron2`` and are skipped where the user brought another one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import pkgutil

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("detectron2")

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import SimpleTrainer, default_setup, hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import Visualizer


def is_pure_build() -> bool:
    try:
        return importlib.metadata.version("detectron2").endswith("+pure")
    except importlib.metadata.PackageNotFoundError:  # on the path, not installed
        return False


pure = pytest.mark.skipif(
    not is_pure_build(), reason="this detectron2 was not built by packaging/detectron2"
)


@pytest.fixture
def loggers():
    """Undo what ``setup_logger`` does to the loggers: open files, and no propagation."""
    kept = {name: logging.getLogger(name) for name in ("detectron2", "fvcore")}
    state = {k: (v.handlers[:], v.level, v.propagate) for k, v in kept.items()}
    yield
    for name, logger in kept.items():
        logger.handlers[:], logger.level, logger.propagate = state[name]


def tiny_cfg():
    """An R-18-FPN Mask R-CNN with 16 channels and 2 classes on the CPU."""
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.WEIGHTS, model.MASK_ON = "cpu", "", True
    model.RESNETS.DEPTH, model.RESNETS.RES2_OUT_CHANNELS = 18, 64
    model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.BACKBONE.NAME, model.FPN.OUT_CHANNELS = "build_resnet_fpn_backbone", 16
    model.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.ROI_HEADS.NAME, model.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", 2
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.FC_DIM = 1, 16
    model.ROI_MASK_HEAD.NUM_CONV, model.ROI_MASK_HEAD.CONV_DIM = 1, 16
    return cfg


def tiny_item():
    """One training item: a 64x96 image with a square object."""
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    instances.gt_classes = torch.tensor([1])
    instances.gt_masks = PolygonMasks([[np.array([8, 8, 40, 8, 40, 40, 8, 40], dtype=float)]])
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    return {"image": image, "height": 64, "width": 96, "instances": instances}


# What the modules may lack: optional libraries that detectron2 does not ask for, and `_C`.
OPTIONAL = {"caffe2", "onnx", "panopticapi", "lvis", "cityscapesscripts", "detectron2"}
NEEDS_OPTIONAL = {
    "detectron2.evaluation.fast_eval_api",
    "detectron2.export.api",
    "detectron2.export.c10",
    "detectron2.export.caffe2_export",
    "detectron2.export.caffe2_inference",
    "detectron2.export.caffe2_modeling",
    "detectron2.export.caffe2_patch",
    "detectron2.export.shared",
    "detectron2.projects.panoptic_deeplab",
}


@pure
def test_all_modules_import_but_those_of_optional_libraries():
    import detectron2

    missing = {}
    modules = pkgutil.walk_packages(detectron2.__path__, "detectron2.", onerror=lambda name: None)
    for module in modules:
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            missing[module.name] = (error.name or "").split(".")[0]
    assert set(missing) <= NEEDS_OPTIONAL, missing
    assert set(missing.values()) <= OPTIONAL, missing


@pure
def test_compiled_extension_is_absent_and_not_faked():
    assert importlib.util.find_spec("detectron2._C") is None


@pure
def test_compiled_operators_say_what_is_missing():
    from detectron2.layers import DeformConv, ModulatedDeformConv, ROIAlignRotated
    from detectron2.structures import RotatedBoxes, pairwise_iou_rotated

    boxes = RotatedBoxes(torch.tensor([[5.0, 5.0, 4.0, 4.0, 30.0]]))
    for use in (
        lambda: DeformConv(4, 4, 3),
        lambda: ModulatedDeformConv(4, 4, 3),
        lambda: ROIAlignRotated((7, 7), 1.0, 0),
        lambda: pairwise_iou_rotated(boxes, boxes),
    ):
        with pytest.raises(ImportError, match="compiled operators of detectron2"):
            use()


@pure
def test_deformable_backbone_is_refused_when_it_is_built():
    cfg = tiny_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 50, 256
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, False, True]
    with pytest.raises(ImportError, match="DeformConv needs the compiled operators"):
        build_model(cfg)


@pure
def test_model_zoo_finds_its_configs():
    from detectron2 import model_zoo

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    assert cfg.MODEL.MASK_ON and cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    lazy = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    assert lazy.model.roi_heads.num_classes == 80
    with pytest.raises(RuntimeError, match="not available in Model Zoo"):
        model_zoo.get_config_file("COCO-Detection/no_such_model.yaml")


def test_environment_report_names_detectron2_and_torch():
    report = collect_env_info()
    assert f"{torch.__version__}" in report
    assert "failed to import" not in report and "wrong installation" not in report


def test_default_setup_writes_log_and_config(tmp_path, loggers):
    cfg = tiny_cfg()
    cfg.OUTPUT_DIR, cfg.SEED = str(tmp_path / "run"), 3
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
    assert "Environment info" in (tmp_path / "run" / "log.txt").read_text()
    saved = get_cfg()
    saved.merge_from_file(str(tmp_path / "run" / "config.yaml"))
    assert saved.MODEL.FPN.OUT_CHANNELS == 16 and saved.SEED == 3


def test_tiny_model_trains_infers_and_reloads(tmp_path):
    torch.manual_seed(0)
    model = build_model(tiny_cfg())
    with EventStorage():
        losses = model([tiny_item()])
    assert {"loss_mask", "loss_cls", "loss_rpn_cls"} <= set(losses)
    sum(losses.values()).backward()

    DetectionCheckpointer(model, str(tmp_path)).save("model")
    other = build_model(tiny_cfg())
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name

    model.eval()
    with torch.no_grad():
        (output,) = model([tiny_item()])
    instances = output["instances"]
    assert instances.pred_masks.shape[1:] == (64, 96) and len(instances) > 0


@pytest.fixture
def toy_dataset(tmp_path):
    """Two 20x20 images with one 10x10 square of class ``square`` each, as a COCO dataset."""
    square = [0, 0, 10, 0, 10, 10, 0, 10]
    common = {"category_id": 7, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    content = {
        "info": {},
        "images": [{"id": i, "file_name": f"{i}.png", "height": 20, "width": 20} for i in (1, 2)],
        "annotations": [
            {"id": i, "image_id": i, "segmentation": [square], **common} for i in (1, 2)
        ],
        "categories": [{"id": 7, "name": "square"}],
    }
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(content))
    name = "packaging_toy"
    register_coco_instances(name, {}, str(path), str(tmp_path))
    DatasetCatalog.get(name)  # fills the metadata
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def detection(found: bool):
    """The exact square with score 0.9, or no detection at all."""
    n = int(found)
    instances = Instances((20, 20))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]])[:n])
    instances.scores = torch.tensor([0.9])[:n]
    instances.pred_classes = torch.tensor([0])[:n]
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[:, :10, :10] = True
    instances.pred_masks = masks[:n]
    return {"instances": instances}


# With one of two objects found, precision is 1 up to recall 0.5 and 0 above: 51 of 101 points.
@pytest.mark.parametrize(("found", "ap"), [((True, True), 100.0), ((True, False), 5100 / 101)])
def test_coco_evaluation_of_a_toy_set(toy_dataset, tmp_path, found, ap):
    evaluator = COCOEvaluator(toy_dataset, ("bbox", "segm"), False, output_dir=str(tmp_path))
    evaluator.reset()
    inputs = [{"image_id": 1}, {"image_id": 2}]
    evaluator.process(inputs, [detection(hit) for hit in found])
    with contextlib.redirect_stdout(io.StringIO()):
        results = evaluator.evaluate()
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == pytest.approx(ap, abs=1e-6)
        assert results[task]["AP75"] == pytest.approx(ap, abs=1e-6)


def make_trainer(folder, make_scheduler):
    torch.manual_seed(0)
    model = ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = SimpleTrainer(model, [torch.ones(1, 2)] * 100, optimizer)
    trainer.rates = []
    trainer.register_hooks(
        [
            hooks.CallbackHook(
                before_step=lambda t: t.rates.append(optimizer.param_groups[0]["lr"])
            ),
            hooks.LRScheduler(optimizer, make_scheduler(optimizer)),
        ]
    )
    return trainer, DetectionCheckpointer(model, str(folder), trainer=trainer)


class ToyModel(nn.Module):
    """A linear layer whose loss is its mean output."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, batch):
        return {"loss": self.linear(batch).mean()}


FOREIGN_SCHEDULERS = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "milestones": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 7], gamma=0.1),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=8),
}


@pure
@pytest.mark.parametrize("name", FOREIGN_SCHEDULERS)
def test_run_with_a_foreign_scheduler_resumes_where_it_stopped(tmp_path, name):
    """A scheduler of torch that is not detectron2's: stop at 4 of 8, resume, compare the rates."""
    whole, _ = make_trainer(tmp_path, FOREIGN_SCHEDULERS[name])
    whole.train(0, 8)

    first, checkpointer = make_trainer(tmp_path, FOREIGN_SCHEDULERS[name])
    first.train(0, 4)
    checkpointer.save("stopped", iteration=3)

    second, checkpointer = make_trainer(tmp_path, FOREIGN_SCHEDULERS[name])
    checkpointer.load(str(tmp_path / "stopped.pth"))
    second.train(4, 8)

    assert len(set(whole.rates)) > 1  # otherwise any resume would look right
    assert first.rates + second.rates == pytest.approx(whole.rates, abs=0)
    assert torch.equal(second.model.linear.weight, whole.model.linear.weight)


@pure
def test_scheduler_hook_has_the_state_of_its_scheduler():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    hook = hooks.LRScheduler(optimizer, scheduler)
    optimizer.step()
    scheduler.step()
    state = hook.state_dict()
    assert state["last_epoch"] == 1

    other = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    hooks.LRScheduler(optimizer, other).load_state_dict(state)
    assert other.last_epoch == 1


@pure
def test_map_dataset_replaces_an_item_that_cannot_be_read():
    dataset = MapDataset([0, 1, 2, 3], lambda x: None if x == 1 else x)
    assert dataset[0] == 0
    assert dataset[1] in (0, 2, 3)


@pure
def test_removed_names_of_numpy_and_pillow_are_not_used():
    assert not BitMasks.from_polygon_masks([[]], 4, 4).tensor.any()
    assert PolygonMasks([[np.zeros(6)]]).nonempty().dtype == torch.bool
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    assert T.ExtentTransform((0, 0, 4, 4), (4, 4)).apply_image(image).shape == (4, 4, 3)


@pure
def test_semantic_and_voc_evaluation_run(tmp_path):
    from detectron2.evaluation import SemSegEvaluator
    from PIL import Image

    truth = tmp_path / "truth.png"
    Image.fromarray(np.array([[0, 0], [1, 1]], dtype=np.uint8)).save(truth)
    name = "packaging_semseg"
    MetadataCatalog.get(name).set(stuff_classes=["a", "b"], ignore_label=255)
    DatasetCatalog.register(name, lambda: [{"file_name": "x.jpg", "sem_seg_file_name": str(truth)}])
    try:
        evaluator = SemSegEvaluator(name, distributed=False)
        evaluator.reset()
        logits = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]])  # 3 of 4 right
        evaluator.process([{"file_name": "x.jpg"}], [{"sem_seg": logits}])
        assert evaluator.evaluate()["sem_seg"]["pACC"] == pytest.approx(75.0)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pure
def test_pictures_are_drawn():
    metadata = MetadataCatalog.get("packaging_names").set(thing_classes=["square"])
    image = np.full((64, 64, 3), 30, dtype=np.uint8)
    with torch.no_grad():
        drawn = Visualizer(image, metadata).draw_instance_predictions(large_detection())
    MetadataCatalog.remove("packaging_names")
    assert drawn.get_image().shape == (64, 64, 3)
    assert (drawn.get_image() != image).any()


def large_detection():
    instances = Instances((64, 64))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 10.0, 50.0, 50.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.8]), torch.tensor([0])
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 10:50, 10:50] = True
    instances.pred_masks = masks
    return instances
