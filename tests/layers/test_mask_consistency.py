import pytest
import torch
from torch.autograd import gradcheck

from msr_d2.layers import mask_consistency
from msr_d2.layers.mask_consistency import (
    PairMatches,
    matched_consistency,
    neighbour_offsets,
    object_windows,
    shifted_consistency,
)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def disagreement(x, y):
    """-log(p q + (1 - p)(1 - q)) as it stands."""
    p, q = x.sigmoid(), y.sigmoid()
    return -torch.log(p * q + (1 - p) * (1 - q))


def shifted_by_loops(logits, edges, box_rows, box_columns, size, dilation):
    total = torch.zeros(len(logits), dtype=logits.dtype)
    _, instances, frames, height, width = logits.shape
    for e, (dy, dx) in enumerate(neighbour_offsets(size, dilation)):
        for t, y, x in edges[:, e].nonzero().tolist():
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width:
                for n in range(instances):
                    weight = box_rows[n, t, y] * box_columns[n, t, x]
                    loss = disagreement(logits[:, n, t, y, x], logits[:, n, t, v, u])
                    total = total + weight * loss
    return total


def matched_by_loops(logits, matches, region):
    total = torch.zeros(len(logits), len(matches), dtype=logits.dtype)
    first = logits.flatten(3)
    for m, pair in enumerate(matches):
        for k, y, x in pair.valid.nonzero().tolist():
            cell = pair.index[k, y, x]
            for n in range(logits.shape[1]):
                if cell >= 0 and region[n, y, x]:
                    a = logits[:, n, pair.second, y, x]
                    total[:, m] += disagreement(a, first[:, n, pair.first, cell])
    return total


def shifted_case(outputs=2, instances=2, frames=2, height=5, width=6, size=3):
    logits = torch.randn(outputs, instances, frames, height, width, dtype=torch.float64) * 3
    edges = torch.rand(frames, size**2 - 1, height, width) > 0.4
    weights = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    rows = weights[torch.randint(0, 4, (instances, frames, height))]
    columns = weights[torch.randint(0, 4, (instances, frames, width))]
    return logits, edges, rows, columns


def matched_case(outputs=2, instances=2, frames=3, height=5, width=4, k=3):
    logits = torch.randn(outputs, instances, frames, height, width, dtype=torch.float64) * 3
    matches = [
        PairMatches(
            i,
            j,
            torch.randint(-1, height * width, (k, height, width)),
            torch.rand(k, height, width) > 0.3,
        )
        for i, j in ((0, 1), (1, 2), (2, 0))
    ]
    region = torch.zeros(instances, height, width, dtype=torch.bool)
    region[0, 1:4, 1:3] = True
    region[1:, 2:, :2] = True
    return logits, matches, region


@pytest.mark.parametrize("size, dilation", [(3, 2), (3, 1), (5, 1), (3, 7)])
def test_shifted_against_loops(size, dilation):
    case = (*shifted_case(size=size), size, dilation)
    torch.testing.assert_close(shifted_consistency(*case), shifted_by_loops(*case))


def test_matched_against_loops():
    case = matched_case()
    torch.testing.assert_close(matched_consistency(*case), matched_by_loops(*case))


@pytest.mark.parametrize("pieces", [False, True])
def test_gradients(pieces, monkeypatch):
    if pieces:  # one output at a time
        monkeypatch.setattr(mask_consistency, "_CPU_ELEMENTS", 1)
    logits, *rest = shifted_case(frames=1)
    assert gradcheck(lambda x: shifted_consistency(x, *rest, 3, 2), logits.requires_grad_())
    logits, *rest = matched_case(height=4, width=3)
    assert gradcheck(lambda x: matched_consistency(x, *rest), logits.requires_grad_())


def test_the_way_of_the_gpu_gives_the_same(monkeypatch):
    """All instances and the whole grid at once."""
    shifted, matched = (*shifted_case(), 3, 2), matched_case()
    cases = ((shifted_consistency, shifted), (matched_consistency, matched))
    expected = [_with_gradient(*case) for case in cases]
    monkeypatch.setattr(mask_consistency, "_on_gpu", lambda tensor: True)
    assert len(object_windows(matched[2].any(2), matched[2].any(1), 0)) == 1
    torch.testing.assert_close([_with_gradient(*case) for case in cases], expected)


def _with_gradient(function, case):
    logits = case[0].clone().requires_grad_()
    loss = function(logits, *case[1:])
    return loss.detach(), torch.autograd.grad(loss.square().sum(), logits)[0]


def test_identity_in_single_precision():
    """Rounding stays small where both probabilities are certain; 0 for agreement."""
    x = torch.linspace(-30, 30, 121)
    # Two frames: the first varies along y, the second along x.
    logits = torch.stack(torch.meshgrid(x, x, indexing="ij")).view(1, 1, 2, 121, 121)
    index = torch.arange(121 * 121).view(1, 121, 121)
    match = PairMatches(0, 1, index, torch.ones_like(index, dtype=torch.bool))
    region = torch.zeros(1, 121, 121, dtype=torch.bool)
    for y, z in ((0, 0), (0, 120), (60, 3), (40, 90), (120, 120), (61, 61)):
        region[:] = False
        region[0, y, z] = True
        loss = matched_consistency(logits, [match], region)
        p, q = x[y].double().sigmoid(), x[z].double().sigmoid()
        expected = -torch.log(p * q + (-x[y].double()).sigmoid() * (-x[z].double()).sigmoid())
        assert loss.item() == pytest.approx(expected.item(), abs=4e-6)


def test_known_values():
    index = torch.zeros(1, 1, 1, dtype=torch.int64)
    match = PairMatches(0, 1, index, index == 0)
    region = torch.ones(1, 1, 1, dtype=torch.bool)

    def loss(x, y):
        logits = torch.tensor([x, y]).view(1, 1, 2, 1, 1)
        return matched_consistency(logits, [match], region).item()

    assert loss(0.0, 7.0) == pytest.approx(0.693147, abs=1e-6)  # log 2 whatever the other says
    assert loss(20.0, -20.0) == pytest.approx(19.306853, abs=1e-5)  # 20 - log 2
    assert loss(20.0, 20.0) == pytest.approx(0, abs=1e-8)
    assert loss(-20.0, -20.0) == pytest.approx(0, abs=1e-8)
    assert loss(60.0, 60.0) == 0


def test_neighbours_outside_of_the_grid_add_nothing():
    logits = torch.randn(1, 1, 1, 1, 1, requires_grad=True)
    edges, profile = torch.ones(1, 8, 1, 1, dtype=torch.bool), torch.ones(1, 1, 1)
    loss = shifted_consistency(logits, edges, profile, profile, 3, 2)
    loss.sum().backward()
    assert loss.item() == 0 and logits.grad.item() == 0
    index = torch.full((2, 1, 1), -1)
    match = PairMatches(0, 0, index, index < 0)
    assert matched_consistency(logits, [match], profile > 0).item() == 0


@pytest.mark.parametrize("on_gpu", [False, True])
def test_no_instances_and_no_pairs(on_gpu, monkeypatch):
    monkeypatch.setattr(mask_consistency, "_on_gpu", lambda tensor: on_gpu)
    logits = torch.zeros(3, 0, 2, 5, 6, requires_grad=True)
    _, edges, rows, columns = shifted_case(instances=0)
    loss = shifted_consistency(logits, edges, rows.float(), columns.float(), 3, 2)
    assert loss.tolist() == [0, 0, 0]
    loss.sum().backward()
    _, matches, _ = matched_case(height=5, width=6)
    region = torch.zeros(0, 5, 6, dtype=torch.bool)
    loss = matched_consistency(logits, matches[:1], region)
    assert loss.tolist() == [[0], [0], [0]]
    loss.sum().backward()
    logits, _, region = matched_case()
    assert matched_consistency(logits, [], region).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_only_logits_are_saved(dtype):
    logits, edges, *profiles = shifted_case(outputs=3)
    profiles, logits = [x.float() for x in profiles], logits.to(dtype)
    saved = _saved(lambda x: shifted_consistency(x, edges, *profiles, 3, 2), logits)
    assert saved == [logits.data_ptr()]
    logits, *rest = matched_case(outputs=3)
    logits = logits.to(dtype)
    assert _saved(lambda x: matched_consistency(x, *rest), logits) == [logits.data_ptr()]


def _saved(function, logits):
    pointers = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: pointers.append(x.data_ptr()) or x, lambda x: x
    ):
        function(logits.requires_grad_())
    return pointers


def _in_float32(logits, edges, rows, columns):
    return logits.float(), edges, rows.float(), columns.float(), 3, 2


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_worked_on_in_float32(dtype, on_gpu, monkeypatch):
    monkeypatch.setattr(mask_consistency, "_on_gpu", lambda tensor: on_gpu)
    logits, matches, region = matched_case()
    cases = (
        (shifted_consistency, _in_float32(*shifted_case())),
        (matched_consistency, (logits.float(), matches, region)),
    )
    for function, (logits, *rest) in cases:
        half = logits.to(dtype)
        loss, gradient = _with_gradient(function, (half, *rest))
        expected, wide = _with_gradient(function, (half.float(), *rest))
        assert loss.dtype == torch.float32 and gradient.dtype == dtype
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, wide.to(dtype))


@pytest.mark.parametrize("on_gpu", [False, True])
def test_overflow_in_half_precision_stays_finite(on_gpu, monkeypatch):
    """inf + inf - inf would not be a number."""
    monkeypatch.setattr(mask_consistency, "_on_gpu", lambda tensor: on_gpu)
    logits, matches, region = matched_case()
    cases = (
        (shifted_consistency, _in_float32(*shifted_case())),
        (matched_consistency, (logits.float(), matches, region)),
    )
    for function, (logits, *rest) in cases:
        half = (logits * 1e5).half()
        assert half.isinf().float().mean() > 0.5
        half.requires_grad_()
        loss = function(half, *rest)
        gradient = torch.autograd.grad(loss.sum(), half)[0]
        assert torch.isfinite(loss).all() and (loss > 0).all()
        assert torch.isfinite(gradient).all() and gradient.any()


def test_matches_without_a_cell_are_spread_in_the_backward_pass(monkeypatch):
    """A GPU adds what goes to the same cell one after the other."""
    monkeypatch.setattr(mask_consistency, "_on_gpu", lambda tensor: True)
    seen, accumulate = [], mask_consistency._accumulate
    monkeypatch.setattr(
        mask_consistency,
        "_accumulate",
        lambda target, index, values: seen.append(index) or accumulate(target, index, values),
    )
    logits, matches, region = matched_case(outputs=1)
    matched_consistency(logits.requires_grad_(), matches, region).sum().backward()
    for pair, index in zip(matches, seen):
        given = pair.index.flatten(1)
        own = torch.arange(given.shape[1]).expand_as(given)
        assert (given < 0).any()
        assert torch.equal(index, torch.where(given < 0, own, given))


def test_object_windows():
    rows = torch.zeros(3, 10, dtype=torch.bool)
    rows[0, 4:6], rows[1, 0], rows[1, 9] = True, True, True
    columns = rows.clone()
    columns[0, 9] = True
    windows = object_windows(rows, columns, margin=2)
    assert windows == [
        (slice(0, 1), slice(2, 8), slice(2, 10)),
        (slice(1, 2), slice(0, 10), slice(0, 10)),
    ]


def test_opposite_neighbours():
    offsets = neighbour_offsets(3, 2)
    assert offsets == [(-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2)]
    for size in (3, 5):
        offsets = neighbour_offsets(size, 3)
        assert [(-y, -x) for y, x in offsets] == offsets[::-1]
