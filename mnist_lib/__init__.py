"""99.44% on MNIST with 13,322 parameters: the net, the training loop and the verdict.

To read the library, begin with recipe, net, augment, training and log. Modules that need matplotlib
are not imported here, so `import mnist_lib` stays quick: `from mnist_lib.figures import pictures`.
"""

# ruff: noqa: F401, I001 (names handed on, in their own order)
from .base import __version__
from .base.errors import DataError, MnistLibError, ParameterError, RunError, check_flags
from .base.machine import environment, pick_device
from .base.tables import Table
from .augment import Rescaled, augment, normalize, random_affine
from .data import MNIST, load_mnist
from .net import FastNet, Net, set_seed
from .nets import FoldedNet, LeanNet, SmallNet, SprintNet
from .recipe import RECIPES, Recipe, get_recipe, make_net, recipe_table
from .evaluation import count_parameters, evaluate, infer
from .history import Epoch, History, describe, epochs_table, load_history, load_study, summary
from .log import format_log
from .runs.export import export_onnx
from .runs.folder import load_weights, pretrained, run_folder, save_run
from .runs.threads import check_threads, choose_threads
from .training import train
from .grade.notebooks import read_notebook
from .grade.parse import parse_log
from .grade.records import check_run, held_out, logged_run, logged_runs, recorded_studies
from .grade.luck import luck_table
from .grade.verdict import Claim, Verdict, findings, verdict
from .figures.layers import Layer, LayerTable, layer_table
from .digits.prepare import Prediction, predict, prepare
