"""99.44% on MNIST with 13,322 parameters: the net, the training loop and the verdict.

The data's way: recipe -> data -> net -> train -> history -> plots and verdict. The plots are
imported apart, `from mnist_lib import plots`, so that `import mnist_lib` stays quick.
"""

__version__ = "1.0.0"

from .augment import augment, draw
from .claims import Claim, Verdict, describe, verdict
from .data import MNIST, load_mnist, normalize
from .device import environment, pick_device
from .errors import (
    DataError,
    LayerError,
    LogError,
    MnistLibError,
    ParameterError,
    RunError,
)
from .history import Epoch, History, load_history
from .layers import Layer, LayerTable, layer_table
from .log import logged_run, parse_log
from .net import Net, SprintNet, count_parameters, make_net
from .recipe import RECIPES, Recipe, get_recipe
from .run import load_weights, run_folder, save_run
from .training import infer, set_seed, test, train

__all__ = [
    "MNIST",
    "RECIPES",
    "Claim",
    "DataError",
    "Epoch",
    "History",
    "Layer",
    "LayerError",
    "LayerTable",
    "LogError",
    "MnistLibError",
    "Net",
    "ParameterError",
    "Recipe",
    "RunError",
    "SprintNet",
    "Verdict",
    "augment",
    "count_parameters",
    "describe",
    "draw",
    "environment",
    "get_recipe",
    "infer",
    "layer_table",
    "load_history",
    "load_mnist",
    "load_weights",
    "logged_run",
    "make_net",
    "normalize",
    "parse_log",
    "pick_device",
    "run_folder",
    "save_run",
    "set_seed",
    "test",
    "train",
    "verdict",
]
