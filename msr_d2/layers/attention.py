"""Multi-head attention with a mask for each query, without its weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class MultiheadAttention(nn.Module):
    """The values and parameter names of ``nn.MultiheadAttention``, batch first.

    A mask of each query is broadcast over the heads, and the attention weights are not returned,
    so that fused kernels can be used.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0):
        """
        Args:
            embed_dim: channels C.
            num_heads: heads; must divide the channels.
            dropout: of the attention weights, in training.

        Raises:
            ValueError: if the heads do not divide the channels.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"attention cannot share {embed_dim} channels among {num_heads} heads: choose a "
                "number of heads that divides the channels"
            )
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        allowed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from each query to the keys.

        Args:
            query: (B, Q, C).
            key, value: (B, S, C).
            allowed: (B, 1, Q, S) bool, false where a query must not look; None allows all. A query
                that may look nowhere has no defined result.

        Returns:
            (B, Q, C).
        """
        inputs = (query, key, value)
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        heads = [
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, weights, biases)
        ]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=allowed, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))
