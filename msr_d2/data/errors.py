"""Errors that a data set can cause; all of them are a ``ValueError``."""


class DatasetError(ValueError):
    """Something in a user's data set cannot be used; the message names it and the cure."""


class TooManyBadImagesError(DatasetError):
    """More image files could not be used than ``DATALOADER.MAX_BAD_IMAGES`` allows."""
