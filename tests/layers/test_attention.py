import pytest
import torch
from torch import nn

from msr_d2.layers.attention import MultiheadAttention


def pair(channels=16, heads=4):
    ours, reference = (
        MultiheadAttention(channels, heads),
        nn.MultiheadAttention(channels, heads, batch_first=True),
    )
    nn.init.normal_(reference.in_proj_bias)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("with_mask", [False, True])
def test_equals_that_of_torch(with_mask):
    ours, reference = pair()
    query, key, value = torch.randn(2, 3, 16), torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    allowed = torch.rand(2, 1, 3, 5) < 0.6
    allowed[..., 0] = True
    blocked = ~allowed.expand(-1, 4, -1, -1).flatten(0, 1) if with_mask else None
    expected = reference(query, key, value, attn_mask=blocked)[0]
    found = ours(query, key, value, allowed if with_mask else None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for x, y in zip(
        torch.autograd.grad(found.square().sum(), ours.parameters()),
        torch.autograd.grad(expected.square().sum(), reference.parameters()),
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_parameters_have_the_names_of_torch():
    ours, reference = pair()
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, reference)]
    assert shapes[0] == shapes[1]


def test_dropout_in_training_only():
    attention = MultiheadAttention(8, 2, dropout=0.9)
    query, key = torch.randn(1, 4, 8), torch.randn(1, 50, 8)
    assert not torch.equal(attention(query, key, key), attention(query, key, key))
    attention.eval()
    assert torch.equal(attention(query, key, key), attention(query, key, key))


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="16 channels among 3 heads"):
        MultiheadAttention(16, 3)
