import torch

from msr_d2.benchmark import box_losses
from msr_d2.mask_free_vis.affinities import frame_pairs


def test_rows():
    calls = []
    table = box_losses.rows(
        (1, 2), 1, (2,), progress=lambda: calls.append(1), frames=2, grid=(12, 16)
    )
    assert len(table) == 3 * 2 and len(calls) == 3 * 3 * 2
    assert all(len(row) == len(box_losses.HEADER) for row in table)
    assert table[1][0] == "TK-loss, R = 5, 2 instances, 2 outputs"
    assert all(float(cell) > 0 for row in table for cell in row[1:4])


def test_both_forms_compute_the_same():
    for settings in box_losses.TEMPORAL_FORMS.values():
        inputs = box_losses.LossInputs(2, torch.device("cpu"), settings, 3, (16, 20), 2)
        losses = box_losses.temporal_losses(inputs, box_losses.matched(inputs))
        pairs = frame_pairs(3, settings.tube)
        expected = sum(box_losses.direct_pair_loss(inputs, pair) for pair in pairs)
        assert expected > 0
        # equally near candidates may be chosen differently
        torch.testing.assert_close(losses[0], expected, rtol=2e-3, atol=0)
        losses = box_losses.pairwise_losses(inputs, box_losses.found_edges(inputs))
        torch.testing.assert_close(losses[0], box_losses.direct_pairwise_loss(inputs))


def test_saved_memory_counts_each_storage_once():
    x = torch.ones(256, 1024, requires_grad=True)  # 1 MiB
    assert box_losses.saved_mebibytes(lambda: x.square() + x.sin()) == 1
    assert box_losses.saved_mebibytes(lambda: x.exp() + x.exp()) == 2
