"""The compatibility edits of detectron2 0.6, each with its reason.

Three kinds: modules that import the compiled extension load without it; names that numpy, Pillow,
setuptools and Python have removed; one wrong behaviour with recent torch.
"""

from __future__ import annotations

from .engine import Edit

NO_EXTENSION = "this build has no compiled extension; the module must load, and say so on use"
NUMPY = "numpy 1.24 removed the aliases of the builtin types"

IMPORT = "from detectron2 import _C\n"
GUARDED_IMPORT = """\
from detectron2.utils.env import require_extension

try:
    from detectron2 import _C
except ImportError:  # built without compiled operators: require_extension() says so on use
    _C = None
"""

REQUIRE_EXTENSION = '''\
def require_extension(user):
    """
    Raise an ImportError that says what to do, if detectron2 was built without ``detectron2._C``.

    Args:
        user (str): what needs the compiled operators.
    """
    if importlib.util.find_spec("detectron2._C") is None:
        raise ImportError(
            f"{user} needs the compiled operators of detectron2 (detectron2._C), and this "
            f"detectron2 was built without them. Do not use {user}, or install a detectron2 "
            "that was compiled for your PyTorch."
        )


'''


def _guard(file: str) -> Edit:
    return Edit(file, IMPORT, GUARDED_IMPORT, NO_EXTENSION)


def _require(file: str, before: str, user: str) -> Edit:
    """Call ``require_extension`` after the line ``before``, with the indentation it has."""
    indent = before[: len(before) - len(before.lstrip())]
    return Edit(file, before, f'{before}{indent}require_extension("{user}")\n', NO_EXTENSION)


ENV = "detectron2/utils/env.py"
DEFORM_CONV = "detectron2/layers/deform_conv.py"
ROTATED_BOXES = "detectron2/layers/rotated_boxes.py"
ROI_ALIGN_ROTATED = "detectron2/layers/roi_align_rotated.py"
COCO_EVALUATION = "detectron2/evaluation/coco_evaluation.py"
SEM_SEG = "detectron2/evaluation/sem_seg_evaluation.py"
VISUALIZER = "detectron2/utils/visualizer.py"
MODEL_ZOO = "detectron2/model_zoo/model_zoo.py"
HOOKS = "detectron2/engine/hooks.py"

EXTENSION_EDITS = (
    Edit(
        ENV,
        "def seed_all_rng(seed=None):\n",
        REQUIRE_EXTENSION + "def seed_all_rng(seed=None):\n",
        NO_EXTENSION,
    ),
    _guard(DEFORM_CONV),
    _require(DEFORM_CONV, "        super(DeformConv, self).__init__()\n", "DeformConv"),
    _require(
        DEFORM_CONV,
        "        super(ModulatedDeformConv, self).__init__()\n",
        "ModulatedDeformConv",
    ),
    _guard(ROTATED_BOXES),
    Edit(
        ROTATED_BOXES,
        "    return _C.box_iou_rotated(boxes1, boxes2)\n",
        '    require_extension("pairwise_iou_rotated")\n'
        "    return _C.box_iou_rotated(boxes1, boxes2)\n",
        NO_EXTENSION,
    ),
    _guard(ROI_ALIGN_ROTATED),
    _require(
        ROI_ALIGN_ROTATED, "        super(ROIAlignRotated, self).__init__()\n", "ROIAlignRotated"
    ),
    Edit(
        COCO_EVALUATION,
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "try:\n"
        "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:  # it is compiled; the official one gives the same numbers, slower\n"
        "    COCOeval_opt = COCOeval\n",
        "the fast COCO evaluator is compiled; pycocotools' own one takes its place",
    ),
    Edit(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n"
        "    from caffe2.proto import caffe2_pb2 as _caffe2  # noqa: F401\n"
        "except ImportError:  # export to caffe2 needs it; tracing and scripting do not\n"
        "    pass\n"
        "else:\n"
        "    from .api import *\n",
        "torch no longer ships caffe2, which only the caffe2 export needs",
    ),
)

REMOVED_NAME_EDITS = (
    Edit(
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 removed Image.LINEAR, an old name of Image.BILINEAR",
    ),
    Edit("detectron2/structures/masks.py", ".astype(np.bool)", ".astype(bool)", NUMPY, 2),
    Edit("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)", NUMPY),
    Edit(
        "detectron2/evaluation/pascal_voc_evaluation.py",
        ".astype(np.bool)",
        ".astype(bool)",
        NUMPY,
        2,
    ),
    Edit(SEM_SEG, "dtype=np.int)", "dtype=int)", NUMPY, 2),
    Edit(SEM_SEG, "dtype=np.float)", "dtype=float)", NUMPY, 2),
    Edit(SEM_SEG, ".astype(np.float)", ".astype(float)", NUMPY, 3),
    Edit("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)", NUMPY),
    Edit("detectron2/data/build.py", "dtype=np.int)", "dtype=int)", NUMPY),
    Edit("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n", NUMPY),
    Edit(VISUALIZER, ".astype(np.bool)", ".astype(bool)", NUMPY, 3),
    Edit("detectron2/utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)", NUMPY),
    Edit(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)",
        "self._rng.sample(tuple(self._fallback_candidates), k=1)",
        "Python 3.11 no longer samples from a set; before, it made this tuple itself",
    ),
    Edit(
        MODEL_ZOO,
        "import pkg_resources\n",
        "from importlib.resources import files\n",
        "setuptools 82 removed pkg_resources",
    ),
    Edit(
        MODEL_ZOO,
        "    cfg_file = pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )\n",
        '    cfg_file = str(files("detectron2.model_zoo").joinpath("configs", config_path))\n',
        "setuptools 82 removed pkg_resources",
    ),
)

# torch 2.0 turned the base class of its schedulers into LRScheduler and kept _LRScheduler as a
# subclass that its own schedulers do not have. LRMultiplier still derives from the old name.
IS_SCHEDULER = "isinstance(self.scheduler, torch.optim.lr_scheduler._LRScheduler)"
SCHEDULER_BASE = """\
# The base class of all schedulers of torch, under its present or its former name.
_LRScheduler = getattr(
    torch.optim.lr_scheduler, "LRScheduler", torch.optim.lr_scheduler._LRScheduler
)


"""

BEHAVIOUR_EDITS = (
    Edit(
        HOOKS,
        IS_SCHEDULER,
        "isinstance(self.scheduler, _LRScheduler)",
        "torch's own schedulers were not recognised: their state was not saved, and a resumed run "
        "started its schedule again at 0 without a word",
        2,
    ),
    Edit(
        HOOKS,
        "class LRScheduler(HookBase):\n",
        SCHEDULER_BASE + "class LRScheduler(HookBase):\n",
        "the name that the edit above uses",
    ),
    Edit(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        "torch announces that the default will change, and warns in every run",
    ),
    Edit(
        "projects/Panoptic-DeepLab/panoptic_deeplab/post_processing.py",
        "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n",
        "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
        '        indexing="ij",\n',
        "torch announces that the default of meshgrid will change, and warns in every run",
    ),
)

EDITS = EXTENSION_EDITS + REMOVED_NAME_EDITS + BEHAVIOUR_EDITS
