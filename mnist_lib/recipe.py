"""Recipes: the hyper-parameters of a training run, as data; and the net of a recipe."""

import dataclasses
from dataclasses import dataclass

import torch.nn as nn

from .augment import Views
from .errors import NAME, ParameterError, check, is_finite, is_name, is_whole, nearest, plain
from .net import NETS
from .tables import Table

# What a field may be: the test of it, and how a message says so.
WHOLE = (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1")
POSITIVE = (lambda v: is_finite(v) and v > 0, "a number above 0")
NOT_NEGATIVE = (lambda v: is_finite(v) and v >= 0, "a number of at least 0")
BELOW_ONE = (lambda v: is_finite(v) and 0 <= v < 1, "a number from 0 to less than 1")
SHARE = (lambda v: is_finite(v) and 0 < v <= 1, "a number above 0, at most 1")
CROP = (lambda v: is_whole(v) and v % 2 == 0 and 20 <= v <= 28, "an even number from 20 to 28")
VIEWS = (lambda v: is_whole(v) and v in (1, 4), "1 or 4")
FLAG = (lambda v: isinstance(v, bool), "True or False")


def _one_of(*choices: str) -> tuple:
    return lambda v: isinstance(v, str) and v in choices, f"one of {', '.join(choices)}"


def _field(limit: tuple, reason: str, *default):
    default = default[0] if default else dataclasses.MISSING
    return dataclasses.field(default=default, metadata={"limit": limit, "reason": reason})


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of one training run: each field with its limit, reason and default.

    An *epoch* is a pass over the training images, or over `first` and `hardest` of them. Raises
    ParameterError for a value beyond a field's limit.
    """

    name: str = _field((is_name, NAME), "names the run's folder")
    epochs: int = _field(WHOLE, "until it no longer gains")
    batch_size: int = _field(WHOLE, "images per step: larger batches, fewer and less noisy steps")
    learning_rate: float = _field(POSITIVE, "step size; the peak of the schedule")
    momentum: float = _field(BELOW_ONE, "share of the last step that carries on, with sgd", 0.9)
    optimizer: str = _field(_one_of("sgd", "adam"), "the rule of a step", "sgd")
    net: str = _field(_one_of(*NETS), "another small net", "assignment")
    crop: int = _field(CROP, "pixels: the rim is empty, and a third of the work", 28)
    nesterov: bool = _field(FLAG, "momentum that looks ahead", False)
    weight_decay: float = _field(NOT_NEGATIVE, "L2 penalty: pulls weights towards zero", 0.0)
    schedule: str = _field(
        _one_of("constant", "one_cycle"), "up, then down to nothing: the end is steady", "constant"
    )
    warm_up: float = _field(BELOW_ONE, "share of all steps up to the peak", 0.0)
    rotation: float = _field(NOT_NEGATIVE, "degrees either way: a turned digit is the same", 0.0)
    shift: float = _field(NOT_NEGATIVE, "pixels either way, along both axes", 0.0)
    scale: float = _field(BELOW_ONE, "share of the size: larger or smaller", 0.0)
    averaging: float = _field(BELOW_ONE, "decay per step: averaged weights are steadier", 0.0)
    first: float = _field(SHARE, "share of the images in the first epoch, at random", 1.0)
    hardest: float = _field(SHARE, "share in later epochs, of highest loss: they still teach", 1.0)
    label_smoothing: float = _field(BELOW_ONE, "share of a target spread over all classes", 0.0)
    views: int = _field(VIEWS, "of each test image, moved as in training: their mean errs less", 1)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            holds, expected = field.metadata["limit"]
            check(field.name, value, holds(value), expected)
            object.__setattr__(self, field.name, plain(value))
        if self.nesterov and not self.momentum:
            raise ParameterError("nesterov needs a momentum above 0, got 0")
        if self.views > 1 and not (self.rotation or self.shift):
            raise ParameterError(f"{self.views} views need a rotation or a shift above 0, got none")

    @property
    def augments(self) -> bool:
        """Whether training images are augmented."""
        return bool(self.rotation or self.shift or self.scale)

    @property
    def passes(self) -> float:
        """Images trained on in all epochs, in training sets."""
        return self.first + (self.epochs - 1) * self.hardest

    def for_source(self, source: str) -> "Recipe":
        """The recipe as it trains on data of this `source`: the sample is seen whole each epoch.

        A share of its 4,000 images is too few to learn from.
        """
        return dataclasses.replace(self, first=1.0, hardest=1.0) if source == "sample" else self

    def epoch_images(self, epoch: int, count: int) -> int:
        """How many of `count` training images `epoch` (from 1) trains on."""
        return max(1, round(count * (self.first if epoch == 1 else self.hardest)))

    def epoch_steps(self, count: int) -> list[int]:
        """Steps of each epoch over `count` training images."""
        images = [self.epoch_images(epoch, count) for epoch in range(1, self.epochs + 1)]
        return [-(-number // self.batch_size) for number in images]


# What most recipes share. All settings were compared on validation folds: notebooks/search.ipynb.
_COMMON = {
    "batch_size": 64,
    "learning_rate": 0.15,
    "nesterov": True,
    "schedule": "one_cycle",
    "warm_up": 0.3,
    "rotation": 6.0,
    "shift": 0.75,
    "scale": 0.05,
    "averaging": 0.995,
}
# For nets of 8,000 parameters and fewer. The whole image did better than its middle on two folds:
# the net then averages over 4 x 4 places.
_SMALL = _COMMON | {"epochs": 30, "averaging": 0.998}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # The author's own, of the assignment's log, as published: S4/EVA4_Assignment4.ipynb of
        # github.com/Nildk123/EVA_2, whose 26th execution is that log.
        Recipe("assignment", epochs=19, batch_size=32, learning_rate=0.01),
        Recipe("steady", **_COMMON, epochs=7, crop=24, hardest=0.25),
        Recipe("fast", **_COMMON, epochs=9, crop=24, first=0.35, hardest=0.08, label_smoothing=0.1),
        Recipe(
            "sprint",
            epochs=2,
            batch_size=128,
            learning_rate=0.3,
            net="sprint",
            crop=20,
            nesterov=True,
            schedule="one_cycle",
            warm_up=0.2,
        ),
        Recipe("long", **_COMMON, epochs=20, crop=24, hardest=0.25),
        # A small net does not learn its training images by heart: no epoch leaves any out.
        Recipe("small", **_SMALL, net="p2976"),
        # Half the augmentation: on folds its gain is within the error.
        Recipe("tiny", **_SMALL | {"rotation": 3.0, "shift": 0.375, "scale": 0.025}, net="p1000"),
        # On folds half the images do no worse than all; with the assignment's net, four views
        # lower the loss and the errors.
        Recipe("views", **_SMALL, net="p7942", hardest=0.5, views=4),
    )
}


def get_recipe(name: str | None = None, /, **overrides) -> Recipe:
    """The recipe called `name`, by default `assignment`, with those `overrides` that are not None.

    Raises ParameterError for an unknown recipe or field, or a value beyond its limit.
    """
    name = "assignment" if name is None else name
    known = isinstance(name, str) and name in RECIPES
    check("recipe", name, known, f"one of {', '.join(RECIPES)}")
    fields = [field.name for field in dataclasses.fields(Recipe) if field.name != "name"]
    for field in set(overrides).difference(fields):
        hint = nearest(field, fields)
        raise ParameterError(f"a recipe has no field {field!r}{hint}; it has {', '.join(fields)}")
    changes = {key: value for key, value in overrides.items() if value is not None}
    return dataclasses.replace(RECIPES[name], **changes)


def check_recipe(recipe: Recipe) -> None:
    """Raise ParameterError unless `recipe` is a Recipe; a name is not one."""
    check("recipe", recipe, isinstance(recipe, Recipe), "a Recipe, as get_recipe returns")


def make_net(recipe: Recipe) -> nn.Module:
    """The recipe's net, with random weights: call `set_seed` first to reproduce them."""
    check_recipe(recipe)
    net = NETS[recipe.net](crop=recipe.crop)
    return net if recipe.views == 1 else Views(net, recipe)


def differences(theirs: dict, ours: dict) -> list[str]:
    """What tells one recipe, as a dict of its fields, from another: one phrase per field.

    A field that a record lacks has its default.
    """
    if not isinstance(theirs, dict):
        return ["no recipe there"]
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(Recipe)
        if field.default is not dataclasses.MISSING
    }
    theirs, ours = defaults | theirs, defaults | ours
    return [
        f"{name} is {theirs.get(name, 'unknown')} there, {ours.get(name, 'unknown')} here"
        for name in dict.fromkeys((*ours, *theirs))
        if theirs.get(name) != ours.get(name)
    ]


def recipe_table(recipe: Recipe) -> Table:
    """The assignment's recipe beside another, field by field, with a reason for each."""
    check_recipe(recipe)
    rows = [
        {
            "": field.name.replace("_", " "),
            "the assignment": f"{getattr(RECIPES['assignment'], field.name)}",
            recipe.name: f"{getattr(recipe, field.name)}",
            "why": field.metadata["reason"],
        }
        for field in dataclasses.fields(Recipe)
        if field.name != "name"
    ]
    return Table(rows, left=4)
