from collections import Counter

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from msr_d2.config import get_cfg
from msr_d2.mask_free_vis import losses as box_losses
from msr_d2.mask_free_vis.affinities import clip_affinities
from msr_d2.mask_free_vis.box_settings import PairwiseSettings, TemporalSettings
from msr_d2.mask_free_vis.criterion import VideoSetCriterion
from msr_d2.mask_free_vis.filled_boxes import clip_boxes
from msr_d2.mask_free_vis.loss_weights import warmup_factors
from msr_d2.mask_free_vis.matching import match
from msr_d2.mask_free_vis.targets import ClipTargets

CLASSES, QUERIES, FRAMES, SIZE = 3, 5, 3, (32, 48)
BOXES = [(2, 2, 18, 14), (20, 8, 44, 30), (4, 16, 16, 28)]
BOX_KEYS = ["loss_mask_proj", "loss_bound", "loss_bound_neighbor"]
MASK_KEYS = ["loss_mask", "loss_dice"]


def make_cfg(*opts):
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = CLASSES
    cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS = 50
    cfg.MODEL.MASK_FREE.TEMPORAL.WARMUP_ITERS = 0
    cfg.DATASETS.TRAIN = ("a", "b")
    cfg.merge_from_list(list(opts))
    return cfg


def mixed(cfg):
    cfg.MODEL.MASK_FREE.DATASET_SUPERVISION = [["b", "mask"]]
    return cfg


def clip(labels, present=None, boxes=BOXES, supervision="box", frames=FRAMES, seed=0):
    """A clip of smooth frames, in which the pairs of neighbours and frames match."""
    n = len(labels)
    corners = torch.tensor(boxes[:n]).float().view(n, 1, 4).expand(n, frames, 4)
    present = torch.ones(n, frames) if present is None else torch.tensor(present)
    generator = torch.Generator().manual_seed(seed)
    coarse = 100 + 20 * torch.rand(1, 3, 3, 4, generator=generator)
    images = F.interpolate(coarse, SIZE, mode="bilinear").expand(frames, -1, -1, -1)
    sizes = torch.tensor([SIZE] * frames)
    affinities = clip_affinities(images, sizes, 4, PairwiseSettings(), TemporalSettings())
    masks = clip_boxes(corners, present.bool(), SIZE, 1).filled().bool()
    return ClipTargets(
        labels=torch.tensor(labels, dtype=torch.int64),
        boxes=corners * present[..., None],
        present=present.bool(),
        supervision=supervision,
        clip_boxes=clip_boxes(corners, present.bool(), SIZE, 4),
        affinities=affinities if supervision == "box" else None,
        masks=masks if supervision == "mask" else None,
        is_image=frames == 1,
    )


def make_outputs(clips, outputs=1, frames=FRAMES, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def one():
        shapes = (clips, QUERIES, CLASSES + 1), (clips, QUERIES, frames, SIZE[0] // 4, SIZE[1] // 4)
        names = "pred_logits", "pred_masks"
        tensors = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        return dict(zip(names, tensors))

    result = one()
    result["aux_outputs"] = [one() for _ in range(outputs - 1)]
    return result


def run(criterion, outputs, targets, iteration=0):
    with EventStorage(iteration):
        return criterion(outputs, targets)


def matched_logits(criterion, outputs, target, row=0):
    """(N, T, h, w) of the queries that are matched in one clip of a batch."""
    classes, masks = outputs["pred_logits"][row], outputs["pred_masks"][row]
    (index,) = match(classes[None, None], masks[None, None], [target], criterion.matching)
    return masks[index[0]]


# -------------------------------------------------------------------------------- which losses


@pytest.mark.parametrize(
    "opts, exceptions, keys",
    [
        ([], [], BOX_KEYS),
        (["MODEL.MASK_FREE.SUPERVISION", "mask"], [], MASK_KEYS),
        ([], [["b", "mask"]], BOX_KEYS + MASK_KEYS),
        ([], [["b", "mask"], ["a", "mask"]], MASK_KEYS),
        (["MODEL.MASK_FREE.SUPERVISION", "mask"], [["c", "box"]], MASK_KEYS),
        (["DATASETS.TRAIN", ()], [["b", "mask"]], BOX_KEYS),
    ],
)
def test_keys_depend_on_the_config(opts, exceptions, keys):
    cfg = make_cfg(*opts)
    cfg.MODEL.MASK_FREE.DATASET_SUPERVISION = exceptions
    targets = [clip([0, 1], supervision="mask" if keys == MASK_KEYS else "box")]
    losses = run(VideoSetCriterion(cfg), make_outputs(1, 3), targets)
    keys = ["loss_ce", *keys]
    assert set(losses) == {key + suffix for key in keys for suffix in ("", "_0", "_1")}
    assert all(loss.dim() == 0 and loss.dtype == torch.float32 for loss in losses.values())


def test_without_deep_supervision():
    cfg = make_cfg("MODEL.MASK_FORMER.DEEP_SUPERVISION", False)
    losses = run(VideoSetCriterion(cfg), make_outputs(1, 3), [clip([0])])
    assert set(losses) == {"loss_ce", *BOX_KEYS}


def test_clip_of_a_kind_that_the_config_does_not_have():
    with pytest.raises(ValueError, match="supervision 'mask'.*DATASETS.TRAIN"):
        run(VideoSetCriterion(make_cfg()), make_outputs(1), [clip([0], supervision="mask")])


@pytest.mark.parametrize("key", ["SUPERVISION", "ABSENT_FRAMES", "WARMUP_COUNTER"])
def test_unknown_choice(key):
    with pytest.raises(ValueError, match=f"MODEL.MASK_FREE.{key}.* is 'x'"):
        VideoSetCriterion(make_cfg(f"MODEL.MASK_FREE.{key}", "x"))


def test_state_dict():
    state = VideoSetCriterion(make_cfg()).state_dict()
    assert list(state) == ["empty_weight"]
    assert state["empty_weight"].tolist() == pytest.approx([1, 1, 1, 0.1])


# ------------------------------------------------------------------------------------- values


def test_losses_are_those_of_the_matched_queries():
    cfg = make_cfg("MODEL.MASK_FREE.LAMBDA_PAIR", 0.5, "MODEL.MASK_FREE.BOX_WEIGHT", 3.0)
    criterion, target = VideoSetCriterion(cfg), clip([0, 2], [[1, 1, 0], [1, 1, 1]])
    outputs = make_outputs(1, 2)
    losses = run(criterion, outputs, [target])
    for suffix, output in (("", outputs), ("_0", outputs["aux_outputs"][0])):
        x, boxes = matched_logits(criterion, output, target), target.clip_boxes
        images = target.affinities
        projection = box_losses.projection_loss(x, boxes)
        pairwise = box_losses.pairwise_color_loss(x, images.edges, boxes)
        temporal = box_losses.temporal_knn_patch_loss(x, images.matches, boxes.union())
        torch.testing.assert_close(losses["loss_mask_proj" + suffix], 3 * projection)
        torch.testing.assert_close(losses["loss_bound" + suffix], 3 * 0.5 * pairwise)
        torch.testing.assert_close(losses["loss_bound_neighbor" + suffix], 3 * 0.1 * temporal)
        assert min(projection, pairwise, temporal) > 0.1


def test_box_losses_are_means_over_the_instances_of_all_clips():
    criterion, outputs = VideoSetCriterion(make_cfg()), make_outputs(3)
    targets = [clip([0, 2]), clip([]), clip([1], boxes=BOXES[1:], seed=1)]
    loss = run(criterion, outputs, targets)["loss_mask_proj"]
    parts = [
        box_losses.projection_loss(matched_logits(criterion, outputs, t, row), t.clip_boxes)
        for row, t in enumerate(targets)
        if len(t.labels)
    ]
    torch.testing.assert_close(loss, 5 * (2 * parts[0] + parts[1]) / 3)


def test_point_losses_are_divided_by_the_number_of_masks(monkeypatch):
    cfg = make_cfg("MODEL.MASK_FREE.SUPERVISION", "mask")
    criterion, outputs = VideoSetCriterion(cfg), make_outputs(2)
    targets = [clip([0, 2], supervision="mask"), clip([1], supervision="mask")]
    with torch.no_grad():
        outputs["pred_masks"].zero_()
    losses = run(criterion, outputs, targets)
    # 3 masks of 3 frames, divided by 3
    assert losses["loss_mask"].item() == pytest.approx(5 * 3 * 0.6931, rel=1e-3)
    with EventStorage():
        assert criterion(outputs, targets, num_masks=6.0)["loss_mask"].item() == pytest.approx(
            5 * 1.5 * 0.6931, rel=1e-3
        )


def test_classification_by_hand():
    criterion, outputs = VideoSetCriterion(make_cfg()), make_outputs(2, 2)
    targets = [clip([0, 2]), clip([])]
    losses = run(criterion, outputs, targets)
    for suffix, output in (("", outputs), ("_0", outputs["aux_outputs"][0])):
        logits, masks = output["pred_logits"], output["pred_masks"]
        index, _ = match(logits[None], masks[None], targets, criterion.matching)
        classes = torch.full((2, QUERIES), CLASSES)
        classes[0, index[0]] = torch.tensor([0, 2])
        expected = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), criterion.empty_weight)
        torch.testing.assert_close(losses["loss_ce" + suffix], 2 * expected)


def test_reduced_precision():
    outputs = make_outputs(1)
    half = {key: outputs[key].bfloat16() for key in ("pred_logits", "pred_masks")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = run(VideoSetCriterion(make_cfg()), half, [clip([0, 1])])
    rounded = {key: value.float() for key, value in half.items()}
    expected = run(VideoSetCriterion(make_cfg()), rounded, [clip([0, 1])])
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[key])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_float32_copy_of_masks_of_half_precision_is_saved(dtype):
    outputs = make_outputs(1, 2)
    for output in (outputs, *outputs["aux_outputs"]):
        output.update(pred_masks=output["pred_masks"].detach().to(dtype).requires_grad_())
    wide = []

    def pack(tensor):
        wide.append(tensor.numel() if tensor.dtype == torch.float32 else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        losses = run(VideoSetCriterion(make_cfg()), outputs, [clip([0, 1])])
    assert all(losses[key] > 0 for key in BOX_KEYS)
    assert max(wide) < 2 * 2 * FRAMES * SIZE[0] // 4 * SIZE[1] // 4


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_overflow_in_half_precision_stays_finite(supervision):
    outputs = make_outputs(1)
    masks = (outputs["pred_masks"].detach() * 1e5).half().requires_grad_()
    assert masks.isinf().any()
    criterion = VideoSetCriterion(make_cfg("MODEL.MASK_FREE.SUPERVISION", supervision))
    losses = run(criterion, {**outputs, "pred_masks": masks}, [clip([0], supervision=supervision)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert torch.isfinite(masks.grad).all()


def test_nothing_to_classify():
    """All weights of the mean are 0."""
    criterion = VideoSetCriterion(make_cfg("MODEL.MASK_FORMER.NO_OBJECT_WEIGHT", 0.0))
    outputs = make_outputs(1)
    loss = run(criterion, outputs, [clip([])])["loss_ce"]
    loss.backward()
    assert loss == 0 and (outputs["pred_logits"].grad == 0).all()


def test_masks_may_be_transposed():
    """As those of the decoder are, which cannot be flattened without a copy."""
    outputs, plain = make_outputs(2), make_outputs(2)
    transposed = outputs["pred_masks"].detach().transpose(1, 2).contiguous().requires_grad_()
    outputs["pred_masks"] = transposed.transpose(1, 2)
    targets = [clip([0, 2]), clip([1])]
    losses = run(VideoSetCriterion(make_cfg()), outputs, targets)
    expected = run(VideoSetCriterion(make_cfg()), plain, targets)
    assert all(torch.equal(losses[key], expected[key]) for key in losses)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    assert torch.equal(transposed.grad.transpose(1, 2), plain["pred_masks"].grad)


def test_image_is_a_clip_of_one_frame():
    losses = run(VideoSetCriterion(make_cfg()), make_outputs(1, 2, frames=1), [clip([0], frames=1)])
    assert losses["loss_bound"] > 0 and losses["loss_mask_proj"] > 0
    assert losses["loss_bound_neighbor"] == losses["loss_bound_neighbor_0"] == 0


# ------------------------------------------------------------------------ connected to the graph


@pytest.mark.parametrize("normalise", ["matches", "hw"])
@pytest.mark.parametrize("case", ["nothing", "box only", "mask only"])
def test_all_predictions_have_a_finite_gradient(case, normalise):
    targets = {
        "nothing": [clip([]), clip([], supervision="mask")],
        "box only": [clip([0, 1]), clip([2])],
        "mask only": [clip([0, 1], supervision="mask"), clip([], supervision="mask")],
    }[case]
    cfg = mixed(make_cfg("MODEL.MASK_FREE.TEMPORAL.NORMALISE", normalise))
    outputs = make_outputs(2, 2)
    losses = run(VideoSetCriterion(cfg), outputs, targets)
    assert all(torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
    zero = {"box only": MASK_KEYS, "mask only": BOX_KEYS}.get(case, BOX_KEYS + MASK_KEYS)
    assert all(losses[key] == losses[key + "_0"] == 0 for key in zero)
    sum(losses.values()).backward()
    for output in (outputs, *outputs["aux_outputs"]):
        assert torch.isfinite(output["pred_masks"].grad).all()
        assert output["pred_logits"].grad.abs().sum() > 0
        assert (output["pred_masks"].grad.abs().sum() > 0) == (case in ("box only", "mask only"))


def test_each_zero_alone_is_connected():
    outputs = make_outputs(1)
    losses = run(VideoSetCriterion(mixed(make_cfg())), outputs, [clip([])])
    for key in BOX_KEYS + MASK_KEYS:
        (gradient,) = torch.autograd.grad(losses[key], outputs["pred_masks"], retain_graph=True)
        assert (gradient == 0).all()


def test_loss_without_weight_needs_no_target():
    cfg = make_cfg("MODEL.MASK_FREE.LAMBDA_PAIR", 0.0, "MODEL.MASK_FREE.LAMBDA_TEMP", 0.0)
    target = clip([0])
    target.affinities = None
    losses = run(VideoSetCriterion(cfg), make_outputs(1), [target])
    assert losses["loss_bound"] == losses["loss_bound_neighbor"] == 0 < losses["loss_mask_proj"]


# ------------------------------------------------------------------------- instances and labels


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_more_instances_than_queries(supervision, caplog, monkeypatch):
    # widths 2 to 16: the two smallest have no query
    boxes = [(x, 0, x + 2 * (x + 1), 8) for x in (7, 0, 3, 1, 6, 2, 5)]
    outputs = make_outputs(1)
    cfg = make_cfg("MODEL.MASK_FREE.SUPERVISION", supervision)
    criterion = VideoSetCriterion(cfg)
    monkeypatch.setattr("detectron2.utils.logger._LOG_COUNTER", Counter())
    losses = []
    for kept in (boxes, [box for box in boxes if box[0] > 1]):
        torch.manual_seed(0)
        target = clip([0] * len(kept), boxes=kept, supervision=supervision)
        losses.append(run(criterion, outputs, [target]))
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])
    run(criterion, outputs, [clip([0] * 7, boxes=boxes, supervision=supervision)])
    # of two clips that are too full only the first is reported
    assert caplog.text.count("7 instances, but there are 5 queries") == 1


@pytest.mark.parametrize("official", [False, True])
def test_label_of_instances_that_are_absent_from_the_last_frame(official):
    cfg = make_cfg("MODEL.MASK_FREE.LABEL_FROM_LAST_FRAME", official)
    criterion, outputs = VideoSetCriterion(cfg), make_outputs(1)
    losses = run(criterion, outputs, [clip([0, 1], [[1, 1, 0], [0, 1, 1]])])
    labels = [CLASSES if official else 0, 1]
    plain = VideoSetCriterion(make_cfg())
    expected = run(plain, outputs, [clip(labels, [[1, 1, 0], [0, 1, 1]])])
    assert all(torch.equal(losses[key], expected[key]) for key in losses)


def test_label_of_a_single_image_is_never_changed():
    cfg = make_cfg("MODEL.MASK_FREE.LABEL_FROM_LAST_FRAME", True)
    outputs, target = make_outputs(1, frames=1), clip([0, 1], frames=1)
    target.present[1] = False
    losses = run(VideoSetCriterion(cfg), outputs, [target])
    expected = run(VideoSetCriterion(make_cfg()), outputs, [target])
    assert torch.equal(losses["loss_ce"], expected["loss_ce"])


# ------------------------------------------------------------------------------------- warm-up


def test_warmup_factors():
    assert warmup_factors(0, 4, 3) == [0.25] * 3
    assert warmup_factors(3, 4, 3) == warmup_factors(9, 4, 3) == [1.0] * 3
    # official: the final output counts first, then the others from the first layer on
    assert warmup_factors(0, 10, 3, per_output=True) == [0.2, 0.3, 0.1]
    assert warmup_factors(2, 8, 3, per_output=True) == [1.0, 1.0, 7 / 8]


@pytest.mark.parametrize("counter", ["per_iteration", "per_output"])
def test_warmup_by_the_iteration_of_the_trainer(counter):
    keys = ("MODEL.MASK_FREE.TEMPORAL.WARMUP_ITERS", 20, "MODEL.MASK_FREE.PAIRWISE.WARMUP_ITERS", 8)
    cfg = make_cfg(*keys, "MODEL.MASK_FREE.WARMUP_COUNTER", counter)
    criterion, outputs, targets = VideoSetCriterion(cfg), make_outputs(1, 2), [clip([0, 1])]
    full = run(criterion, outputs, targets, iteration=100)
    third = run(criterion, outputs, targets, iteration=2)
    steps = {"per_iteration": {"_0": 3, "": 3}, "per_output": {"_0": 6, "": 5}}[counter]
    for suffix, step in steps.items():
        for key, iterations in (("loss_bound", 8), ("loss_bound_neighbor", 20)):
            expected = full[key + suffix] * step / iterations
            torch.testing.assert_close(third[key + suffix], expected)
        assert third["loss_mask_proj" + suffix] == full["loss_mask_proj" + suffix]
