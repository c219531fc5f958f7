"""What counts as a number where a caller or a file gives one: True and nan do not."""

import sys

from .errors import ParameterError


def is_whole(value) -> bool:
    """Whether `value` is an int."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value) -> bool:
    """Whether `value` is an int or a float, neither infinite nor nan, that a float can hold."""
    return (is_whole(value) or isinstance(value, float)) and abs(value) <= sys.float_info.max


def check_seed(seed: int) -> None:
    """Raise ParameterError unless `seed` is one for torch: a whole number from 0 to 2**63 - 1."""
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise ParameterError(f"seed takes a whole number from 0 to 2**63 - 1, not {seed!r}")
