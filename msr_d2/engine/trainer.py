"""The trainer: detectron2's, with our loaders and evaluators, and an exact resume."""

from __future__ import annotations

import logging
import os
import weakref

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm

from ..data import build_test_loader, build_train_loader
from ..data.build import run_seed
from ..data.train_loader import TrainLoader
from ..evaluation import build_evaluator
from ..mask_scoring import MaskScoringTTA
from .checkpointer import SafeCheckpointer
from .hooks import IterationSeed, TrainingProgress
from .optimizer import build_optimizer
from .progress import ProgressLoader

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """detectron2's ``DefaultTrainer`` with these differences.

    - Loaders and evaluators come from `msr_d2.data` and `msr_d2.evaluation`.
    - A run that was killed and is resumed ends with the weights of an uninterrupted one: its
      checkpoints hold the optimizer (which 0.6 forgets) and the seed, and data order,
      augmentations and sampling are functions of the seed and the iteration. On the CPU the
      weights are equal bit for bit.
    - Test videos whose annotations cannot be evaluated are an error before the training.
    - Several processes may train on the CPU; mixed precision falls back to full precision there.
    """

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: of :func:`msr_d2.engine.setup`, or any config with the keys of msr_d2.

        Raises:
            ValueError: if the data cannot be trained on, or test videos cannot be evaluated.
        """
        # Not DefaultTrainer.__init__: it wraps the model for GPUs only, and unconditionally
        # chooses a checkpointer and, where asked for, mixed precision.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self._check_test_videos(cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        model = _distribute(model)
        step = AMPTrainer if _uses_amp(cfg) else SimpleTrainer
        self._trainer = step(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        seed = loader.seed if isinstance(loader, TrainLoader) else run_seed(cfg)
        self._iteration_seed = IterationSeed(seed)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[hooks.HookBase]:
        """detectron2's hooks and ours; test-time augmentation runs after the last evaluation."""
        first = [self._iteration_seed, TrainingProgress()]
        rest = super().build_hooks()
        if self.cfg.TEST.AUG.ENABLED:
            augmented = hooks.EvalHook(0, lambda: self.test_with_TTA(self.cfg, self.model))
            # Before the writers, which are last in the main process, so that its results are kept.
            has_writers = isinstance(rest[-1], hooks.PeriodicWriter)
            rest.insert(len(rest) - has_writers, augmented)
        return first + rest

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS.

        Args:
            resume: whether to look for a checkpoint.

        Raises:
            ValueError: if the checkpoint is of another model.
        """
        super().resume_or_load(resume)
        frozen = self.cfg.MODEL.BACKBONE.FREEZE_AT
        if self.start_iter == 0 and not self.cfg.MODEL.WEIGHTS and frozen > 0:
            logger.warning(
                "MODEL.WEIGHTS is empty but MODEL.BACKBONE.FREEZE_AT is %d: the frozen layers "
                "stay random. Give ImageNet weights, or set FREEZE_AT 0 and RESNETS.NORM BN or GN.",
                frozen,
            )
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise ValueError(
                f"the processes would resume at different iterations, {starts}: OUTPUT_DIR "
                f"'{self.cfg.OUTPUT_DIR}' must be on a file system that all machines share."
            )
        if isinstance(self.data_loader, TrainLoader):
            self.data_loader.seed = self._iteration_seed.seed
            self.data_loader.start_iter = self.start_iter
        elif self.start_iter > 0:
            logger.warning("The training loader is not ours: its images start from the beginning.")
        if self.start_iter >= self.max_iter:
            logger.warning(
                "The checkpoint is at iteration %d of %d: nothing is left to train. Raise "
                "SOLVER.MAX_ITER to train longer.",
                self.start_iter,
                self.max_iter,
            )

    def state_dict(self) -> dict:
        """State of hooks, iteration, optimizer and gradient scaler."""
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """The reverse of `state_dict`; reads checkpoints of detectron2 0.6 and main as well."""
        TrainerBase.load_state_dict(self, state)
        inner = state.get("_trainer")
        if inner is None:
            logger.warning("The checkpoint holds no optimizer state; momentum starts at zero.")
            return
        if hasattr(self._trainer, "grad_scaler"):  # absent if written in full precision
            inner.setdefault("grad_scaler", self._trainer.grad_scaler.state_dict())
        self._trainer.load_state_dict(inner)

    def train(self) -> dict | None:
        """Train, and return the results of the last evaluation (main process only)."""
        super().train()
        return getattr(self, "_last_eval_results", None) if comm.is_main_process() else None

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """See :func:`msr_d2.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """See :func:`msr_d2.data.build_train_loader`."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> ProgressLoader:
        """See :func:`msr_d2.data.build_test_loader`; it shows its progress."""
        return ProgressLoader(build_test_loader(cfg, dataset_name), f"Evaluating {dataset_name}")

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """See :func:`msr_d2.evaluation.build_evaluator`.

        Args:
            cfg: the config.
            dataset_name: a registered test set.
            output_folder: where result files go; default ``OUTPUT_DIR/inference``, and a folder
                of its own there for each of several test sets.
        """
        folder = results_folder(cfg, dataset_name, output_folder)
        return build_evaluator(cfg, dataset_name, folder)

    @classmethod
    def _check_test_videos(cls, cfg: CfgNode) -> None:
        """Make loaders and evaluators of test videos once, so that errors do not come at the end.

        Not for images: COCO's evaluator checks nothing when it is made, but loads and indexes its
        file, which for a large one takes long and needs much memory.
        """
        for name in cfg.DATASETS.TEST:
            if MetadataCatalog.get(name).get("evaluator_type") == "ytvis":
                cls.build_test_loader(cfg, name)
                cls.build_evaluator(cfg, name)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: torch.nn.Module) -> dict:
        """Evaluate with test-time augmentation; result names end in ``_TTA``."""
        logger.info("Running inference with test-time augmentation ...")
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, MaskScoringTTA(cfg, model), evaluators)
        return {f"{name}_TTA": result for name, result in results.items()}

    @classmethod
    def evaluate(cls, cfg: CfgNode, resume: bool = False) -> dict:
        """Evaluate MODEL.WEIGHTS on all of DATASETS.TEST, without training.

        Args:
            cfg: the config.
            resume: take the last checkpoint of OUTPUT_DIR if there is one.

        Raises:
            ValueError: if there are no weights, or they do not fill the model.
        """
        model = cls.build_model(cfg)
        checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, complete=True)
        if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
            raise ValueError(
                "nothing to evaluate: give MODEL.WEIGHTS path/to/model_final.pth, or --resume for "
                f"the last checkpoint in OUTPUT_DIR '{cfg.OUTPUT_DIR}'."
            )
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        results = cls.test(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            results.update(cls.test_with_TTA(cfg, model))
        if comm.is_main_process():
            verify_results(cfg, results)
        return results


def results_folder(cfg: CfgNode, dataset_name: str, folder: str | None = None) -> str:
    """Where the result files of a test set go: a folder of its own where there are several."""
    folder = folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    return os.path.join(folder, dataset_name) if len(cfg.DATASETS.TEST) > 1 else folder


def _distribute(model: torch.nn.Module) -> torch.nn.Module:
    """Wrap the model if there are several processes, on GPUs or on the CPU."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    # A CPU model must not be given device ids; detectron2 fills them in when they are absent.
    devices = {"device_ids": None} if on_cpu else {}
    return create_ddp_model(model, broadcast_buffers=False, **devices)


def _uses_amp(cfg: CfgNode) -> bool:
    if cfg.SOLVER.AMP.ENABLED and not cfg.MODEL.DEVICE.startswith("cuda"):
        logger.warning(
            "SOLVER.AMP.ENABLED needs a CUDA device, MODEL.DEVICE is '%s': training in full "
            "precision.",
            cfg.MODEL.DEVICE,
        )
        return False
    return cfg.SOLVER.AMP.ENABLED
