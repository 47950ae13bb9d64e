"""Errors that more than one room raises."""


class InvalidArgument(ValueError, AssertionError):
    """An argument that makes no sense.

    It is an AssertionError too, as code written for the public detrex, which asserts, expects one.
    """
