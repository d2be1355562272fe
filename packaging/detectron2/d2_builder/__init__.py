"""Builds a pure-Python detectron2 wheel from the published sdist; never part of that wheel."""
