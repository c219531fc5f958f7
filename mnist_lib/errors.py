"""The library's own errors: one sentence each, saying what was wrong, where, and what to do."""


class MnistLibError(Exception):
    """Base of every error raised on purpose by this library."""

    def _render_traceback_(self):
        # IPython's hook: a notebook's reader gets the sentence, not our stack.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(MnistLibError, ValueError):
    """A parameter has a value that makes no sense; the message names it and what it takes."""


class DataError(MnistLibError):
    """MNIST could not be found, read, verified or downloaded."""


class LogError(MnistLibError, ValueError):
    """A training log or a history file is malformed or cut short."""


class LayerError(MnistLibError, TypeError):
    """A net has a layer whose receptive field cannot be computed."""


class RunError(MnistLibError):
    """A run's folder cannot be written or read."""
