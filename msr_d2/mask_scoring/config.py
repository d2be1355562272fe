"""Config keys of Mask Scoring R-CNN (arXiv 1903.00241)."""

from detectron2.config import CfgNode


def add_mask_scoring_config(cfg: CfgNode) -> None:
    """Add the keys of the MaskIoU head, of Soft-NMS and of the oracle evaluation, in place."""
    # Switches the MaskIoU head on. Off: plain Mask R-CNN through the same ROI heads.
    cfg.MODEL.MASKIOU_ON = False
    # Weight of `loss_maskiou`, the half squared error of the predicted MaskIoU (Sec. 3.3: 1).
    cfg.MODEL.MASKIOU_LOSS_WEIGHT = 1.0

    head = cfg.MODEL.ROI_MASKIOU_HEAD = CfgNode()
    # Name in ROI_MASKIOU_HEAD_REGISTRY.
    head.NAME = "MaskIoUHead"
    # Fig. 3: four 3x3 convolutions (the last one with stride 2), then two hidden fully connected
    # layers and the output layer with one MaskIoU per class.
    head.NUM_CONV = 4
    head.CONV_DIM = 256
    head.NUM_FC = 2
    head.FC_DIM = 1024
    # What the head sees, Table 4: "concat" (a, the paper's choice), "multiply" (b),
    # "concat_all" (c), "concat_hr" (d), or "mask_only" (no RoI feature).
    head.INPUT = "concat"
    # Which classes of a RoI are trained, Table 5: "gt_class" (#1, the paper's choice),
    # "all" (#2: target 0 for classes absent from the RoI), "positive" (#3: present classes).
    head.TARGET = "gt_class"
    # Only samples with MaskIoU > TAU are trained (tau in Table 6).
    head.TAU = 0.0
    # Probability above which a pixel counts as mask when the target is computed. The published
    # code before May 2019, and mmdetection, compared logits with 0.5: that is 0.6225 here.
    head.MASK_THRESHOLD = 0.5
    # The mask score: "product" of class score and predicted MaskIoU (Sec. 3.2), or "maskiou" alone.
    head.SCORE = "product"
    # True: `scores` carries the mask score, so that any evaluator ranks by it (box AP too).
    head.OVERWRITE_SCORES = False

    soft_nms = cfg.MODEL.ROI_HEADS.SOFT_NMS = CfgNode()
    # "hard" is detectron2's own NMS; "gaussian" and "linear" decay the scores instead.
    soft_nms.METHOD = "hard"
    # Width of the Gaussian decay exp(-iou^2 / sigma) (the authors used 0.6).
    soft_nms.SIGMA = 0.6
    # Boxes whose decayed score falls below this are dropped (the authors used 0.001).
    # It replaces MODEL.ROI_HEADS.SCORE_THRESH_TEST when METHOD is not "hard".
    soft_nms.SCORE_THRESH = 0.001

    # Also report mask AP with the predicted MaskIoU replaced by the true one (Table 7).
    cfg.TEST.EVAL_ORACLE = False
