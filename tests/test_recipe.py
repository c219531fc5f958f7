"""Recipes and devices: the defaults, and every parameter that makes no sense."""

import dataclasses

import pytest
import torch

from mnist_lib import ParameterError, get_recipe, pick_device, set_seed


def test_logged_is_the_assignments():
    recipe = get_recipe("logged")
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (19, 32, "sgd")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3


def test_overrides_that_are_none_leave_the_recipe():
    recipe = get_recipe("logged", epochs=3, batch_size=None, learning_rate=1)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (3, 32, 1.0)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("fastest", "epochs", 1, "recipe takes one of logged, fast, steady, sprint, not 'fastest'"),
        (["logged"], "epochs", 1, "recipe takes one of logged, fast, steady, sprint, not"),
        ("logged", "learning_rate", 10**400, "learning_rate takes a number above 0"),
        ("logged", "epochs", 0, "epochs takes a whole number of at least 1, not 0"),
        ("logged", "epochs", 2.5, "epochs takes a whole number of at least 1, not 2.5"),
        ("logged", "epochs", True, "epochs takes a whole number"),
        ("logged", "batch_size", "big", "batch_size takes a whole number of at least 1, not 'big'"),
        ("logged", "learning_rate", 0, "learning_rate takes a number above 0, not 0"),
        ("logged", "learning_rate", float("nan"), "learning_rate takes a number above 0, not nan"),
        ("logged", "learning_rate", "0.1", "learning_rate takes a number above 0, not '0.1'"),
        ("logged", "momentum", 1, "momentum takes a number from 0 to less than 1, not 1"),
        ("logged", "momentum", "0.9", "momentum takes a number from 0 to less than 1, not '0.9'"),
        ("fast", "averaging", 1.0, "averaging takes a number from 0 to less than 1, not 1.0"),
        ("fast", "warm_up", -0.1, "warm_up takes a number from 0 to less than 1, not -0.1"),
        ("fast", "scale", 1, "scale takes a number from 0 to less than 1, not 1"),
        ("fast", "rotation", -4, "rotation takes a number of at least 0, not -4"),
        ("fast", "shift", "1", "shift takes a number of at least 0, not '1'"),
        ("fast", "weight_decay", -1, "weight_decay takes a number of at least 0, not -1"),
        ("fast", "crop", 18, "crop takes an even number from 20 to 28, not 18"),
        ("fast", "crop", 30, "crop takes an even number from 20 to 28, not 30"),
        ("fast", "hardest", 0, "hardest takes a number above 0, at most 1, not 0"),
        ("fast", "hardest", 1.5, "hardest takes a number above 0, at most 1, not 1.5"),
        ("fast", "hardest", "half", "hardest takes a number above 0, at most 1, not 'half'"),
        ("fast", "first", 1.01, "first takes a number above 0, at most 1, not 1.01"),
        ("fast", "label_smoothing", 1, "label_smoothing takes a number from 0 to less than 1"),
        ("fast", "nesterov", 1, "nesterov takes True or False, not 1"),
        ("fast", "momentum", 0, "nesterov takes a momentum above 0"),
        ("fast", "schedule", "step", "schedule takes one of constant, one_cycle, not 'step'"),
        ("fast", "net", "big", "net takes one of assignment, sprint, not 'big'"),
        ("logged", "optimizer", "magic", "optimizer takes one of sgd, adam, not 'magic'"),
        ("logged", "layers", 3, "a recipe has no field 'layers'"),
    ],
)
def test_senseless_values_are_named(name, field, value, message):
    with pytest.raises(ParameterError, match=message):
        get_recipe(name, **{field: value})


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True, 2**63])
def test_senseless_seeds(seed):
    with pytest.raises(ParameterError, match="seed takes a whole number from 0"):
        set_seed(seed)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device() == pick_device("auto")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x", None, 3.5])
def test_unknown_devices(name):
    with pytest.raises(ParameterError, match="device takes one of auto, cpu, cuda, cuda:N, mps"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_missing_devices(name):
    with pytest.raises(ParameterError, match=f"device is '{name}', but this machine has none"):
        pick_device(name)
