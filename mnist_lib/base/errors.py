"""The library's own errors, one sentence each, and the checks that raise them."""

import contextlib
import difflib
import math
import numbers
import re
import sys
from collections.abc import Iterable, Iterator


class MnistLibError(Exception):
    """Base of every error that this library raises on purpose."""

    def _render_traceback_(self):
        # IPython's hook: a notebook shows the sentence, not our stack.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(MnistLibError, ValueError):
    """A parameter has an impossible value; the message names it and what it accepts."""


class DataError(MnistLibError, ValueError):
    """MNIST, a log or a history is missing, malformed or cut short."""


class RunError(MnistLibError):
    """A run cannot go on, or its folder cannot be written or read."""


@contextlib.contextmanager
def exit_in_a_sentence(program: str, stopped: str = "stopped") -> Iterator[None]:
    """End a command line with one sentence on MnistLibError, Ctrl-C or a reader that has gone."""
    try:
        yield
    except MnistLibError as error:
        sys.exit(f"{program}: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(f"{program}: {stopped}")
    finally:
        try:
            print(end="", flush=True)
        except BrokenPipeError:  # as after `| head -1`
            sys.stdout = None  # else Python flushes it again, with a traceback


def is_whole(value) -> bool:
    """Whether `value` is an integer, Python's or numpy's, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


NAME = "1 to 40 letters, digits, _ and -"  # folders are named after recipes and data sources


def is_name(value) -> bool:
    """Whether `value` is a NAME, so a folder name that cannot lead out of its parent."""
    return isinstance(value, str) and bool(re.fullmatch(r"[\w-]{1,40}", value))


def is_finite(value) -> bool:
    """Whether `value` is a finite number that fits a float, and not a bool."""
    try:
        return isinstance(value, numbers.Real) and type(value) is not bool and math.isfinite(value)
    except OverflowError:
        return False


def plain(value):
    """A numpy number as a Python one, which JSON accepts; anything else unchanged."""
    if is_whole(value):
        return int(value)
    return float(value) if is_finite(value) else value


def check(name: str, value, holds: bool, expected: str) -> None:
    """Raise ParameterError, with what `name` is expected to be, unless the check `holds`."""
    if not holds:
        raise ParameterError(f"{name} must be {expected}, got {shorten(value)}")


def shorten(value) -> str:
    """The repr of a value on one line, cut to 120 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def check_whole(name: str, value, least: int = 1, most: int = sys.maxsize) -> None:
    """Raise ParameterError unless `value` is a whole number from `least` to `most`."""
    bounds = f"of at least {least}" if most == sys.maxsize else f"from {least} to {most}"
    check(name, value, is_whole(value) and least <= value <= most, f"a whole number {bounds}")


def as_seed(seed: int | None) -> int:
    """`seed` if torch accepts it, 0 to 2**63 - 1; 0 for None."""
    seed = 0 if seed is None else seed
    check("seed", seed, is_whole(seed) and 0 <= seed < 2**63, "a whole number from 0 to 2**63 - 1")
    return int(seed)


def check_flags(**flags: bool) -> None:
    """Raise ParameterError unless every value is True or False."""
    for name, value in flags.items():
        check(name, value, isinstance(value, bool), "True or False")


def nearest(name: str, known: Iterable[str]) -> str:
    """The `known` name closest to `name`, to end a message: `; did you mean 'epochs'`."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}" if close else ""
