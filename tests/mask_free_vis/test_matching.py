import itertools

import pytest
import torch

from msr_d2.benchmark.matching import make_inputs, rows
from msr_d2.benchmark.matching_reference import filled_boxes, match_by_points, sampled_dice_cost
from msr_d2.config import get_cfg
from msr_d2.mask_free_vis.filled_boxes import ClipBoxes, clip_boxes
from msr_d2.mask_free_vis.matching import (
    MatchSettings,
    box_dice_cost,
    box_extents,
    class_cost,
    match,
    point_costs,
)
from msr_d2.mask_free_vis.targets import ClipTargets

GRID, STRIDE = (8, 12), 4
SIZE = (GRID[0] * STRIDE, GRID[1] * STRIDE)


def boxes_of(*tubes):
    """ClipBoxes of tubes, each a list over frames of (x1, y1, x2, y2) in cells or None."""
    present = torch.tensor([[box is not None for box in tube] for tube in tubes])
    cells = torch.tensor([[box or (0, 0, 0, 0) for box in tube] for tube in tubes])
    return clip_boxes(cells.float() * STRIDE, present, SIZE, STRIDE)


def logits_of(*tubes):
    """(N, T, h, w) logits, 3 inside of the box and -3 outside."""
    return 6 * boxes_of(*tubes).filled() - 3


def target_of(labels, *tubes, **arguments):
    boxes = boxes_of(*tubes)
    corners = torch.zeros(*boxes.present.shape, 4)
    return ClipTargets(torch.tensor(labels), corners, boxes.present, clip_boxes=boxes, **arguments)


# -------------------------------------------------------------------------------------- box costs


def test_extents_by_hand():
    logits = torch.full((2, 4, 5), -1.0)
    logits[0, 1, 1] = logits[0, 3, 3] = 0.1  # only the corners of the box
    columns, rows_ = box_extents(logits)
    assert columns.int().tolist() == [[0, 1, 1, 1, 0], [0] * 5]
    assert rows_.int().tolist() == [[0, 1, 1, 1], [0] * 4]


def test_logit_zero_is_outside():
    columns, rows_ = box_extents(torch.zeros(1, 3, 3))
    assert not columns.any() and not rows_.any()


def test_extents_are_those_of_the_drawn_boxes():
    torch.manual_seed(0)
    logits = torch.randn(6, 3, *GRID) - 1.8
    logits[0] = -1
    columns, rows_ = box_extents(logits)
    drawn = (rows_[..., None] & columns[..., None, :]).float()
    assert torch.equal(drawn, filled_boxes(logits)) and drawn.any()


def test_dice_of_equal_and_of_disjoint_boxes():
    tube, other = [(0, 0, 4, 2), (1, 1, 5, 3)], [(8, 4, 11, 8), (6, 4, 9, 8)]
    cost = box_dice_cost(*box_extents(logits_of(tube, other)), boxes_of(tube))
    # areas of 2 * 8 and 2 * 12 cells
    torch.testing.assert_close(cost, torch.tensor([[0.0], [1 - 1 / (16 + 24 + 1)]]))


def test_frames_are_summed_before_the_quotient():
    predicted = [(0, 0, 4, 4), None, (2, 2, 4, 4)]
    true = [(2, 0, 6, 4), (0, 0, 1, 1), None]
    cost = box_dice_cost(*box_extents(logits_of(predicted)), boxes_of(true))
    # intersection 2 x 4; areas 16 + 4 and 16 + 1
    assert cost.item() == pytest.approx(1 - (2 * 8 + 1) / (20 + 17 + 1))


def test_points_scale_the_areas():
    tube, other = [(0, 0, 4, 2)], [(8, 4, 11, 8)]
    cost = box_dice_cost(*box_extents(logits_of(tube)), boxes_of(other), num_points=960)
    # 10 points for each of the 96 cells
    assert cost.item() == pytest.approx(1 - 1 / (80 + 120 + 1))


@pytest.mark.parametrize("soft", [False, True])
def test_dice_equals_that_of_drawn_boxes(soft):
    torch.manual_seed(1)
    logits = torch.randn(2, 7, 3, *GRID) - 1.8  # 2 outputs
    profiles = torch.rand(4, 3, GRID[1]), torch.rand(4, 3, GRID[0])
    if not soft:
        profiles = [(p > 0.5).float() for p in profiles]
    boxes = ClipBoxes(*profiles, torch.ones(4, 3, dtype=torch.bool))
    a, b = filled_boxes(logits).flatten(2)[:, :, None], boxes.filled().flatten(1)
    expected = 1 - (2 * (a * b).sum(-1) + 1) / (a.sum(-1) + b.sum(-1) + 1)
    torch.testing.assert_close(box_dice_cost(*box_extents(logits), boxes), expected)


def test_sampled_points_agree_on_average():
    torch.manual_seed(0)
    inputs = make_inputs(queries=10, grid=(40, 72), seed=3)
    exact = box_dice_cost(*box_extents(inputs.mask_logits[0]), inputs.target.clip_boxes, 4000)
    draws = [sampled_dice_cost(inputs.mask_logits[0], inputs.filled, 4000) for _ in range(40)]
    draws = torch.stack(draws)
    error = draws.std(0) / 40**0.5
    # half a permille for the interpolation at the borders of boxes
    assert ((draws.mean(0) - exact).abs() < 4.5 * error + 5e-3).all()
    assert (draws.mean(0) - exact).abs().mean() < 2e-3


# ------------------------------------------------------------------------------ class, mask costs


def test_class_cost():
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 100.0]])
    cost = class_cost(logits, torch.tensor([0, 2]))  # 2 is "no object"
    torch.testing.assert_close(cost, torch.tensor([[-1 / 3, -1 / 3], [0.0, -1.0]]))


def test_point_costs_equal_those_of_single_pairs():
    torch.manual_seed(0)
    logits, truth = 3 * torch.randn(2, 5, 30), torch.rand(4, 30)
    bce, dice = point_costs(logits, truth)
    assert bce.shape == dice.shape == (2, 5, 4)
    for (i, q), n in itertools.product(itertools.product(range(2), range(5)), range(4)):
        p, t = logits[i, q].double().sigmoid(), truth[n].double()
        pair = torch.nn.functional.binary_cross_entropy(p, t)
        torch.testing.assert_close(bce[i, q, n], pair.float())
        expected = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        torch.testing.assert_close(dice[i, q, n], expected.float())


# ---------------------------------------------------------------------------------------- matching

TUBES = [
    [(0, 0, 4, 2), (0, 1, 4, 3)],
    [(8, 4, 11, 8), None],
    [(5, 0, 8, 8), (5, 0, 7, 8)],
    [(0, 5, 5, 8), (1, 5, 6, 8)],
]


def outputs_in_order(order, classes=3):
    """One output whose query i looks like tube order[i]; all classes are alike."""
    return torch.zeros(len(order), classes + 1), logits_of(*[TUBES[i] for i in order])


def test_each_output_and_clip_has_its_own_matches():
    first, second = outputs_in_order([2, 0, 3, 1]), outputs_in_order([1, 3, 0, 2])
    targets = [
        target_of([0, 0, 0], TUBES[0], TUBES[1], TUBES[2]),
        target_of([1], TUBES[3]),
    ]
    class_logits = torch.stack([torch.stack([x[0], y[0]]) for x, y in [(first, second)] * 2])
    # the second output sees the clips the other way round
    mask_logits = [torch.stack([first[1], second[1]]), torch.stack([second[1], first[1]])]
    matches = match(class_logits, mask_logits, targets, MatchSettings())
    assert [m.dtype for m in matches] == [torch.int64] * 2
    assert matches[0].tolist() == [[1, 3, 0], [2, 0, 3]]
    assert matches[1].tolist() == [[1], [2]]


def test_class_decides_between_equal_boxes():
    _, masks = outputs_in_order([0, 0, 0])
    class_logits = torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 0, 9.0]])
    # 3 is "no object", which instances that are absent from the last frame may be trained as
    target = target_of([1, 3, 0], TUBES[0], TUBES[0], TUBES[0])
    matches = match(class_logits[None, None], masks[None, None], [target], MatchSettings())
    assert matches[0].tolist() == [[1, 2, 0]]


def test_total_cost_is_the_least_of_all_assignments():
    inputs = make_inputs(outputs=3, queries=6, instances=4, frames=2, grid=(20, 30), seed=5)
    settings = MatchSettings(num_points=20000)
    classes = [c[None] for c in inputs.class_logits]
    masks = [m[None] for m in inputs.mask_logits]
    (matches,) = match(classes, masks, [inputs.target], settings)
    for output in range(3):
        cost = 2 * class_cost(inputs.class_logits[output], inputs.target.labels)
        extents = box_extents(inputs.mask_logits[output])
        cost = cost + 5 * box_dice_cost(*extents, inputs.target.clip_boxes, 20000)
        columns = torch.arange(4)
        best = min(
            cost[torch.tensor(order), columns].sum()
            for order in itertools.permutations(range(6), 4)
        )
        assert len(set(matches[output].tolist())) == 4
        torch.testing.assert_close(cost[matches[output], columns].sum(), best)


def test_agrees_with_matching_by_points():
    torch.manual_seed(0)
    inputs = make_inputs(outputs=2, queries=20, grid=(40, 72), seed=1)
    classes, masks = ([x[None] for x in part] for part in (inputs.class_logits, inputs.mask_logits))
    (ours,) = match(classes, masks, [inputs.target], MatchSettings(num_points=20000))
    points = match_by_points(
        inputs.class_logits, inputs.mask_logits, inputs.target.labels, inputs.filled
    )
    assert torch.equal(ours, torch.stack(points))


def test_masks_are_matched_by_points():
    torch.manual_seed(0)
    # same boxes, other masks: only the point costs can tell them apart
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    upper = x * SIZE[0] > y * SIZE[1]
    masks = torch.stack([upper, ~upper])[:, None].expand(-1, 2, -1, -1)
    grid = torch.nn.functional.avg_pool2d(masks.float(), STRIDE)
    logits = torch.stack([-5 * torch.ones_like(grid[0]), 10 * grid[1] - 5, 10 * grid[0] - 5])
    target = target_of([0, 0], TUBES[0], TUBES[0], supervision="mask", masks=masks)
    class_logits = torch.zeros(2, 1, 3, 4)
    both = [logits[None], logits.flip(0)[None]]
    matches = match(class_logits, both, [target], MatchSettings(num_points=500))
    assert matches[0].tolist() == [[2, 1], [0, 1]]


def test_clip_without_instances():
    classes, masks = outputs_in_order([0, 1])
    empty = target_of([0], TUBES[0])
    empty = ClipTargets(
        empty.labels[:0],
        empty.boxes[:0],
        empty.present[:0],
        clip_boxes=ClipBoxes(torch.zeros(0, 2, 12), torch.zeros(0, 2, 8), empty.present[:0]),
    )
    stacked = [torch.stack([masks, masks])] * 3
    targets = [empty, target_of([0], TUBES[1])]
    matches = match(classes.expand(3, 2, -1, -1), stacked, targets, MatchSettings())
    assert matches[0].shape == (3, 0)
    assert matches[1].tolist() == [[1]] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["classes", "masks"])
def test_logits_that_are_not_finite(bad, where):
    classes, masks = outputs_in_order([0, 1, 2])
    spoiled = classes if where == "classes" else masks
    spoiled[0] = bad
    target = target_of([0, 0], TUBES[1], TUBES[2])
    matches = match(classes[None, None], masks[None, None], [target], MatchSettings())
    assert matches[0].tolist() == [[1, 2]]


def test_all_costs_are_bad():
    classes, masks = outputs_in_order([0, 1])
    target = target_of([0, 0], TUBES[0], TUBES[1])
    classes = torch.full_like(classes, float("nan"))
    (matches,) = match(classes[None, None], masks[None, None], [target], MatchSettings())
    assert sorted(matches[0].tolist()) == [0, 1]


def test_more_instances_than_queries():
    classes, masks = outputs_in_order([0])
    target = target_of([0, 0], TUBES[0], TUBES[1])
    with pytest.raises(ValueError, match="2 instances.*1 queries.*NUM_OBJECT_QUERIES"):
        match(classes[None, None], masks[None, None], [target], MatchSettings())


def test_one_copy_to_the_host(monkeypatch):
    copies = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copies.append(x.numel()) or cpu(x))
    classes, masks = outputs_in_order([0, 1, 2])
    targets = [target_of([0, 0], TUBES[1], TUBES[2]), target_of([0], TUBES[0])]
    both = torch.stack([masks, masks])
    match(classes.expand(4, 2, -1, -1), [both] * 4, targets, MatchSettings())
    assert copies == [4 * 3 * (2 + 1)]


def test_reduced_precision():
    classes, masks = outputs_in_order([2, 0, 3, 1])
    target = target_of([0, 0], TUBES[0], TUBES[1])
    half = classes.bfloat16()[None, None], masks.bfloat16()[None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert match(*half, [target], MatchSettings())[0].tolist() == [[1, 3]]


def test_settings_from_config():
    cfg = get_cfg()
    cfg.MODEL.MASK_FREE.BOX_COST_WEIGHT, cfg.MODEL.MASK_FORMER.CLASS_WEIGHT = 3.0, 7.0
    cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS = 99
    assert MatchSettings.from_config(cfg) == MatchSettings(7.0, 3.0, 5.0, 5.0, 99)


def test_benchmark_rows():
    (line,) = rows((2,), repeats=1, num_points=500, queries=5, instances=2, grid=(12, 16))
    assert line[0] == "2 x 5 queries, 2 objects, 5 frames of 12x16"
    assert float(line[3]) > 0 and float(line[4]) < 0.3
