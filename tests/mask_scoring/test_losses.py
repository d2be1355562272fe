import pytest
import torch

from msr_d2.mask_scoring import mask_iou_loss


def test_hand_computed():
    # ((0.5 - 1)^2 + (0.9 - 0.5)^2) / 2 / 2 = (0.25 + 0.16) / 4; the target 0 does not count
    loss = mask_iou_loss(torch.tensor([0.5, 0.9, 7.0]), torch.tensor([1.0, 0.5, 0.0]))
    assert loss.item() == pytest.approx(0.1025)


def test_equals_half_the_mean_squared_error():
    prediction, target = torch.rand(20), torch.rand(20) + 0.01
    expected = 0.5 * torch.nn.functional.mse_loss(prediction, target)
    torch.testing.assert_close(mask_iou_loss(prediction, target), expected)


def test_perfect_prediction_is_zero():
    target = torch.rand(5)
    assert mask_iou_loss(target, target) == 0


@pytest.mark.parametrize(
    "prediction, target",
    [
        (torch.zeros(0), torch.zeros(0)),
        (torch.ones(3), torch.zeros(3)),
        (torch.ones(2), torch.full((2,), float("nan"))),
    ],
)
def test_nothing_selected_is_a_connected_zero(prediction, target):
    prediction = prediction.requires_grad_()
    loss = mask_iou_loss(prediction, target)
    loss.backward()
    assert loss == 0 and prediction.grad is not None and (prediction.grad == 0).all()


def test_gradient_reaches_selected_entries_only():
    prediction = torch.tensor([0.2, 0.6, 0.4], requires_grad=True)
    target = torch.tensor([0.6, float("nan"), 0.1])
    mask_iou_loss(prediction, target, target > 0.3).backward()
    torch.testing.assert_close(prediction.grad, torch.tensor([-0.4, 0.0, 0.0]))


def test_half_precision_is_computed_in_float32():
    loss = mask_iou_loss(torch.tensor([0.5], dtype=torch.float16), torch.tensor([1.0]))
    assert loss.dtype == torch.float32
