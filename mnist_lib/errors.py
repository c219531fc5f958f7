"""What is refused: the library's own errors, one sentence each, and the checks that raise them."""

import sys


class MnistLibError(Exception):
    """Base of every error that this library raises on purpose."""

    def _render_traceback_(self):
        # IPython's hook: a notebook's reader gets the sentence, not our stack.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(MnistLibError, ValueError):
    """A parameter has a value that makes no sense; the message names it and what it takes."""


class DataError(MnistLibError, ValueError):
    """MNIST, a log or a history is missing, malformed or cut short."""


class RunError(MnistLibError):
    """A run cannot go on, or its folder cannot be written or read."""


def is_whole(value) -> bool:
    """Whether `value` is an int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value) -> bool:
    """Whether `value` is an int or a float that a float can hold, neither infinite nor nan."""
    return (is_whole(value) or isinstance(value, float)) and abs(value) <= sys.float_info.max


def check(name: str, value, holds: bool, expected: str) -> None:
    """Raise ParameterError, saying what `name` must be, unless it `holds`."""
    if not holds:
        raise ParameterError(f"{name} must be {expected}, got {value!r}")


def check_whole(name: str, value, least: int = 1, most: int = sys.maxsize) -> None:
    """Raise ParameterError unless `value` is a whole number within the bounds."""
    bounds = f"of at least {least}" if most == sys.maxsize else f"from {least} to {most}"
    check(name, value, is_whole(value) and least <= value <= most, f"a whole number {bounds}")


def check_seed(seed: int) -> None:
    """Raise ParameterError unless `seed` is one for torch: a whole number from 0 to 2**63 - 1."""
    holds = is_whole(seed) and 0 <= seed < 2**63
    check("seed", seed, holds, "a whole number from 0 to 2**63 - 1")
