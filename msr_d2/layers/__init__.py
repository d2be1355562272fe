"""Pure torch operations: no config, no ``Instances``, no other part of msr_d2."""

from .soft_nms import soft_nms
from .statistics import mean_per_bin, pearson_correlation

__all__ = ["mean_per_bin", "pearson_correlation", "soft_nms"]
