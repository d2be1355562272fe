"""Pictures of a trained Mask Scoring R-CNN: overlays, score plots, loss curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as utils
from PIL import Image

from ..data import build_mapper
from ..evaluation.mask_scoring_evaluation import PAIRS_FILE
from ..visualization import (
    Sample,
    contact_sheet,
    plot_losses,
    plot_score_vs_iou,
    plot_scores_per_iou_bin,
)
from .trainer import results_folder


def write_pictures(
    cfg: CfgNode, model: torch.nn.Module, dataset_name: str, count: int = 4
) -> list[Path]:
    """Draw what a training run left in ``cfg.OUTPUT_DIR``.

    Args:
        cfg: config of the run.
        model: the trained model.
        dataset_name: test set whose images are drawn; it must have been evaluated.
        count: number of images on the overlay sheet.

    Returns:
        The pictures written into ``OUTPUT_DIR/pictures``: overlays with both scores, scores
        against true MaskIoU, mean score in each MaskIoU bin, losses.
    """
    run, folder = Path(cfg.OUTPUT_DIR), Path(cfg.OUTPUT_DIR) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    names = MetadataCatalog.get(dataset_name).thing_classes
    samples = sample_predictions(cfg, model, dataset_name, count)
    overlays = folder / "overlays.png"
    sheet = contact_sheet(samples, names, score_threshold=0.5, threshold_on="scores")
    Image.fromarray(sheet).save(overlays)
    with np.load(Path(results_folder(cfg, dataset_name)) / PAIRS_FILE) as pairs:
        scores = pairs["class_score"], pairs["mask_score"], pairs["true_mask_iou"]
        predicted = pairs["mask_iou"]
    return [
        overlays,
        plot_score_vs_iou(*scores, folder / "score_vs_iou.png", predicted_iou=predicted),
        plot_scores_per_iou_bin(*scores, folder / "scores_per_iou_bin.png"),
        plot_losses(run / "metrics.json", folder / "losses.png"),
    ]


@torch.no_grad()
def sample_predictions(
    cfg: CfgNode, model: torch.nn.Module, dataset_name: str, count: int
) -> list[Sample]:
    """Predictions of ``count`` images of a test set, those with about four objects first."""
    items = DatasetCatalog.get(dataset_name)
    items = sorted(items, key=lambda x: abs(len(x["annotations"]) - 4))[:count]
    mapper = build_mapper(cfg, is_train=False)
    was_training = model.training
    model.eval()
    samples = []
    for item in items:
        instances = model([mapper(item)])[0]["instances"].to("cpu")
        image = utils.read_image(item["file_name"], "RGB")
        title = Path(item["file_name"]).name
        samples.append(Sample(image, instances, item["annotations"], title))
    model.train(was_training)
    return samples
