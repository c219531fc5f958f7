"""What counts as a number where a caller or a file gives one: True and nan do not."""

import sys


def is_whole(value) -> bool:
    """Whether `value` is an int."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value) -> bool:
    """Whether `value` is an int or a float, neither infinite nor nan, that a float can hold."""
    return (is_whole(value) or isinstance(value, float)) and abs(value) <= sys.float_info.max
