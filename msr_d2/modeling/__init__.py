"""Modules shared by several rooms that enter detectron2 through its registries."""
