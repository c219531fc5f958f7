"""99.44% on MNIST with 13,322 parameters: the net, the training loop and the verdict.

The names are in the order of the data's way. What draws is imported apart,
`from mnist_lib import pictures, plots`, so that `import mnist_lib` stays quick.
"""

# ruff: noqa: F401, I001 (names handed on, in their own order)
from .errors import DataError, MnistLibError, ParameterError, RunError, check_flags
from .machine import __version__, environment, pick_device
from .augment import augment, normalize, random_affine
from .data import MNIST, load_mnist
from .net import FastNet, LeanNet, Net, SmallNet, SprintNet, set_seed
from .recipe import RECIPES, Recipe, get_recipe, make_net, recipe_table
from .evaluation import count_parameters, evaluate, infer
from .history import Epoch, History, describe, epochs_table, load_history, load_study, summary
from .log import format_log
from .run import load_weights, pretrained, run_folder, save_run
from .export import export_onnx
from .threads import check_threads, choose_threads
from .training import train
from .parse import parse_log
from .records import logged_run, logged_runs, recorded_ideas, recorded_studies
from .verdict import Claim, Verdict, findings, luck_table, verdict
from .comparison import check_run
from .tables import Table
from .receptive_field import Layer, LayerTable, layer_table
from .digit import Prediction, predict, prepare
