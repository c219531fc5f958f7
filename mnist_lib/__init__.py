"""99.44% on MNIST with 13,322 parameters: the net, the training loop and the verdict.

The names are in the order of the data's way. What draws is imported apart,
`from mnist_lib import pictures, plots`, so that `import mnist_lib` stays quick.
"""

# ruff: noqa: F401, I001 (names handed on, in their own order)
from .errors import DataError, MnistLibError, ParameterError, RunError, check_flags
from .machine import __version__, environment, pick_device
from .recipe import RECIPES, Recipe, get_recipe
from .data import MNIST, augment, load_mnist, normalize, random_affine
from .net import FastNet, LeanNet, Net, SmallNet, SprintNet, count_parameters, make_net, set_seed
from .history import Epoch, History, load_history, load_study
from .log import format_log
from .parse import logged_run, logged_runs, parse_log
from .run import load_weights, pretrained, run_folder, save_run
from .evaluation import evaluate, infer
from .training import train
from .threads import check_threads, choose_threads
from .digit import Prediction, predict, prepare
from .export import export_onnx
from .tables import Table, epochs_table, recipe_table
from .receptive_field import Layer, LayerTable, layer_table
from .verdict import (
    Claim,
    Verdict,
    describe,
    findings,
    luck_table,
    recorded_ideas,
    recorded_studies,
    summary,
    verdict,
)
from .comparison import check_run
