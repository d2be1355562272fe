"""MaskFreeVIS: video instance segmentation trained from boxes only (arXiv 2303.15904)."""
