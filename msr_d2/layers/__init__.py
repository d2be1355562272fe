"""Pure torch operations: no config, no ``Instances``, no other part of msr_d2."""

from .soft_nms import soft_nms
from .statistics import pearson_correlation

__all__ = ["pearson_correlation", "soft_nms"]
