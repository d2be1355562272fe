"""Config keys of MaskFreeVIS (arXiv 2303.15904) and of the Mask2Former-VIS family it belongs to.

The keys of the family keep their names, so that its yaml files run here with only
``META_ARCHITECTURE`` changed. What is ours is under ``MODEL.MASK_FREE``.
"""

from detectron2.config import CfgNode


def add_mask_free_vis_config(cfg: CfgNode) -> None:
    """Add the keys of model, losses, clips, solver and inference, in place."""
    _add_family_model(cfg)
    _add_swin(cfg)
    _add_input(cfg)
    _add_solver(cfg)
    _add_mask_free(cfg)


def _add_family_model(cfg: CfgNode) -> None:
    """``MODEL.SEM_SEG_HEAD`` (pixel decoder) and ``MODEL.MASK_FORMER`` (transformer decoder)."""
    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256
    # Name in PIXEL_DECODER_REGISTRY.
    head.PIXEL_DECODER_NAME = "MSDeformAttnPixelDecoder"
    head.TRANSFORMER_ENC_LAYERS = 6
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]
    # Width of the encoder's feed-forward layers; the family has it fixed at 1024.
    head.TRANSFORMER_ENC_DIM_FEEDFORWARD = 1024
    # Read by nobody, there and here: the decoder has 8 heads (MASK_FORMER.NHEADS) and 4 points.
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS = 4
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS = 8

    # Its yaml files set these keys of DeepLab's ResNet, and mark them as not used.
    cfg.MODEL.RESNETS.STEM_TYPE = "basic"
    cfg.MODEL.RESNETS.RES4_DILATION = 1
    cfg.MODEL.RESNETS.RES5_MULTI_GRID = [1, 1, 1]

    former = cfg.MODEL.MASK_FORMER = CfgNode()
    # Name in TRANSFORMER_DECODER_REGISTRY.
    former.TRANSFORMER_DECODER_NAME = "VideoMultiScaleMaskedTransformerDecoder"
    former.TRANSFORMER_IN_FEATURE = "multi_scale_pixel_decoder"
    former.DEEP_SUPERVISION = True
    former.NO_OBJECT_WEIGHT = 0.1
    former.CLASS_WEIGHT = 2.0
    # Weights of the point losses (masks); DICE_WEIGHT is also the weight of the matching cost.
    former.MASK_WEIGHT = 5.0
    former.DICE_WEIGHT = 5.0
    former.NHEADS = 8
    former.DROPOUT = 0.0
    former.DIM_FEEDFORWARD = 2048
    former.ENC_LAYERS = 0
    former.DEC_LAYERS = 10
    former.PRE_NORM = False
    former.HIDDEN_DIM = 256
    former.NUM_OBJECT_QUERIES = 100
    former.ENFORCE_INPUT_PROJ = False
    former.SIZE_DIVISIBILITY = 32
    # Point losses (Sec. 4.6 of our fact sheet): points, over-sampling, share of uncertain points.
    former.TRAIN_NUM_POINTS = 112 * 112
    former.OVERSAMPLE_RATIO = 3.0
    former.IMPORTANCE_SAMPLE_RATIO = 0.75

    test = former.TEST = CfgNode()
    test.SEMANTIC_ON = False
    test.INSTANCE_ON = True
    test.PANOPTIC_ON = False
    test.OVERLAP_THRESHOLD = 0.8
    test.OBJECT_MASK_THRESHOLD = 0.8
    test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_swin(cfg: CfgNode) -> None:
    """``MODEL.SWIN``, for MODEL.BACKBONE.NAME "D2SwinTransformer" (needs timm)."""
    swin = cfg.MODEL.SWIN = CfgNode()
    swin.PRETRAIN_IMG_SIZE = 224
    swin.PATCH_SIZE = 4
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    swin.QK_SCALE = None
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    swin.DROP_PATH_RATE = 0.3
    swin.APE = False
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    swin.USE_CHECKPOINT = False


def _add_input(cfg: CfgNode) -> None:
    """Clips: how many frames, from where, and with which augmentations."""
    # Name of a mapper of the family; "coco_instance_lsj" trains on single images.
    cfg.INPUT.DATASET_MAPPER_NAME = ""
    cfg.INPUT.SAMPLING_FRAME_NUM = 2
    # Frames are drawn from this many frames before and after a reference frame.
    cfg.INPUT.SAMPLING_FRAME_RANGE = 20
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = False
    # Whether frames other than the reference frame may repeat, as they may in the family.
    cfg.INPUT.SAMPLING_FRAME_REPLACE = True
    # Of "brightness", "contrast", "saturation", "rotation".
    cfg.INPUT.AUGMENTATIONS = []
    # Read by nobody: the clip and large-scale jitter mappers of the family ignore it as well.
    cfg.INPUT.COLOR_AUG_SSD = False
    # Large-scale jitter of single images: canvas and range of scales.
    cfg.INPUT.IMAGE_SIZE = 1024
    cfg.INPUT.MIN_SCALE = 0.1
    cfg.INPUT.MAX_SCALE = 2.0
    cfg.INPUT.SIZE_DIVISIBILITY = -1

    # Clips that are made of single images by moving a window over them.
    pseudo = cfg.INPUT.PSEUDO = CfgNode()
    pseudo.SAMPLING_FRAME_NUM = 2
    # Read by nobody: the frames of a still image have no distance in time.
    pseudo.SAMPLING_FRAME_RANGE = 20
    # As INPUT.AUGMENTATIONS; the angles of "rotation" grow or shrink from frame to frame.
    pseudo.AUGMENTATIONS = ["rotation"]
    pseudo.MIN_SIZE_TRAIN = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768)
    pseudo.MAX_SIZE_TRAIN = 768
    pseudo.MIN_SIZE_TRAIN_SAMPLING = "choice_by_clip"
    pseudo.CROP = CfgNode()
    pseudo.CROP.ENABLED = False
    pseudo.CROP.TYPE = "absolute_range"
    pseudo.CROP.SIZE = (384, 600)

    # How often a training clip comes from which of DATASETS.TRAIN, relative to each other;
    # empty: in proportion to the sizes of the sets.
    cfg.DATASETS.DATASET_RATIO = []


def _add_solver(cfg: CfgNode) -> None:
    # "SGD" (detectron2's) or "ADAMW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # AdamW only: factor on the learning rate of the backbone, weight decay of embeddings.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # Of the family, for schedules that it does not use either.
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0


def _add_mask_free(cfg: CfgNode) -> None:
    """``MODEL.MASK_FREE``: supervision, box losses, parity with the official code, inference."""
    free = cfg.MODEL.MASK_FREE = CfgNode()
    # "box" (projection, pairwise and TK-loss) or "mask" (point losses of Mask2Former-VIS).
    free.SUPERVISION = "box"
    # Exceptions for single data sets: [[name, "mask"], ...].
    free.DATASET_SUPERVISION = []
    # Total weight of the box losses, and the weights of pairwise and TK-loss relative to the
    # projection loss: lambda_pair and lambda_temp of the paper.
    free.BOX_WEIGHT = 5.0
    free.LAMBDA_PROJ = 1.0
    free.LAMBDA_PAIR = 1.0
    free.LAMBDA_TEMP = 0.1
    # Weight of the box-dice matching cost.
    free.BOX_COST_WEIGHT = 5.0
    # Filled boxes on the mask grid: "hard" (the centre of a cell lies inside; at least one cell)
    # or "soft" (official: the filled box resized bilinearly).
    free.BOX_EDGES = "hard"
    # Frames without an object of the clip: "suppress" (its mask is pushed to zero there), "none"
    # (left out), "official" (projection loss 2 without any gradient).
    free.ABSENT_FRAMES = "suppress"
    # What the colour edges and the matches take padding and the outside of the grid for:
    # "invalid" (no edges, no matches) or "black" (official: cells like others, of LAB 0).
    free.OUTSIDE = "invalid"
    # Official: LAB of images whose channels are swapped.
    free.LAB_SWAP_CHANNELS = False
    # Official (video only): an object that is absent from the last frame is trained as no object.
    free.LABEL_FROM_LAST_FRAME = False
    # "per_iteration", or official "per_output": each supervised output counts as one step.
    free.WARMUP_COUNTER = "per_iteration"

    pair = free.PAIRWISE = CfgNode()
    pair.SIZE = 3
    pair.DILATION = 2
    # Edges with exp(-THETA * LAB distance) of at least this count as "same object".
    pair.COLOR_THRESHOLD = 0.3
    pair.THETA = 0.5
    pair.WARMUP_ITERS = 0
    # Official, single images only: no pairwise loss unless padding covers 25 to 75 % of the canvas.
    pair.PADDING_GATE = False

    temporal = free.TEMPORAL = CfgNode()
    # "dense": all cells within RADIUS (square window, cells of the mask grid), or official
    # "grid3x3_dil3": 9 cells at offsets -3, 0, 3.
    temporal.CANDIDATES = "dense"
    temporal.RADIUS = 5
    temporal.PATCH_SIZE = 3
    temporal.TOP_K = 5
    # "distance": d < D with LAB / 100; or official "similarity": exp(-d / 2) >= 0.05 with raw LAB.
    temporal.THRESHOLD = "distance"
    temporal.DISTANCE = 0.05
    temporal.SIMILARITY = 0.05
    # "lab" or "rgb" (/ 255), and "l2" or "l1": Table 5 of the paper.
    temporal.COLOR = "lab"
    temporal.METRIC = "l2"
    # Pairs of frames: "cyclic" (Eq. 4), "all" (each pair once), "dense" (each pair, both ways).
    temporal.TUBE = "cyclic"
    # Divisor: "matches" (number of matches of the objects) or "hw" (cells of the mask grid, Eq. 2,
    # mean over the objects).
    temporal.NORMALISE = "matches"
    temporal.WARMUP_ITERS = 200

    test = free.TEST = CfgNode()
    test.TOP_K = 10
    # Frames that go through backbone and pixel decoder, or are upsampled, at once; 0: all.
    test.CHUNK_FRAMES = 8
    # Videos longer than this are worked through in windows; 0: never.
    test.WINDOW_ABOVE = 0
    test.WINDOW_FRAMES = 60
    test.WINDOW_OVERLAP = 10
    # Least association score (mask IoU and query similarity, both in [0, 1]) to join two tracks.
    test.WINDOW_MIN_SCORE = 0.3
