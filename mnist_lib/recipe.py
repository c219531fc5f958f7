"""Recipes: the hyper-parameters of a training run, as data; and the net of a recipe."""

import ast
import dataclasses
from dataclasses import MISSING, dataclass, fields

import torch.nn as nn

from .augment import Views
from .base.errors import NAME, ParameterError, check, is_finite, is_name, is_whole, nearest, plain
from .base.tables import Table
from .nets import IMPORT_PATH, NET_NAMES, NETS, import_net


def _one_of(*choices: str) -> tuple:
    return lambda v: isinstance(v, str) and v in choices, f"one of {', '.join(choices)}"


# The limit of a field: a test, and the words for it in an error message.
WHOLE = (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1")
POSITIVE = (lambda v: is_finite(v) and v > 0, "a number above 0")
NOT_NEGATIVE = (lambda v: is_finite(v) and v >= 0, "a number of at least 0")
BELOW_ONE = (lambda v: is_finite(v) and 0 <= v < 1, "a number from 0 to less than 1")
SHARE = (lambda v: is_finite(v) and 0 < v <= 1, "a number above 0, at most 1")
CROP = (lambda v: is_whole(v) and v % 2 == 0 and 20 <= v <= 28, "an even number from 20 to 28")
VIEWS = (lambda v: is_whole(v) and v in (1, 4), "1 or 4")
FLAG = (lambda v: isinstance(v, bool), "True or False")
NET = (lambda v: isinstance(v, str) and (v in NETS or IMPORT_PATH.fullmatch(v)), NET_NAMES)
SHAPE = _one_of("constant", "one_cycle")  # of the learning rate over the steps


def _field(limit: tuple, reason: str, default=MISSING):
    return dataclasses.field(default=default, metadata={"limit": limit, "reason": reason})


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of one training run: each field with its limit, reason and default."""

    name: str = _field((is_name, NAME), "names the run's folder")
    epochs: int = _field(WHOLE, "until accuracy stops improving")
    batch_size: int = _field(WHOLE, "images per step: larger batches, fewer and less noisy steps")
    learning_rate: float = _field(POSITIVE, "step size; the peak of the schedule")
    momentum: float = _field(BELOW_ONE, "share of the last step that carries on, with sgd", 0.9)
    optimizer: str = _field(_one_of("sgd", "adam"), "how a step follows from the gradient", "sgd")
    net: str = _field(NET, "by its name, or your own by its import path", "assignment")
    crop: int = _field(CROP, "pixels: the rim is mostly empty; 24 saves a quarter of the work", 28)
    nesterov: bool = _field(FLAG, "momentum that looks ahead", False)
    weight_decay: float = _field(NOT_NEGATIVE, "L2 penalty: pulls weights towards zero", 0.0)
    schedule: str = _field(SHAPE, "up, then down to almost nothing: the end is steady", "constant")
    warm_up: float = _field(BELOW_ONE, "share of all steps up to the peak", 0.0)
    rotation: float = _field(NOT_NEGATIVE, "degrees either way: a turned digit is the same", 0.0)
    shift: float = _field(NOT_NEGATIVE, "pixels either way, along both axes", 0.0)
    scale: float = _field(BELOW_ONE, "share of the size: larger or smaller", 0.0)
    averaging: float = _field(BELOW_ONE, "decay per step: averaged weights are steadier", 0.0)
    first: float = _field(SHARE, "share of the images in the first epoch, at random", 1.0)
    hardest: float = _field(SHARE, "share in later epochs, those with the highest loss", 1.0)
    label_smoothing: float = _field(BELOW_ONE, "share of a target spread over all classes", 0.0)
    views: int = _field(VIEWS, "tests average the answers to this many moved copies", 1)

    def __post_init__(self):
        for field in fields(self):
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

    def for_source(self, source: str) -> "Recipe":
        """The recipe as used on this `source`: on the sample, every epoch takes all images."""
        # A share of its 4,000 images is too few to learn from.
        return dataclasses.replace(self, first=1.0, hardest=1.0) if source == "sample" else self

    def epoch_images(self, epoch: int, count: int) -> int:
        """How many of `count` training images `epoch` (from 1) trains on."""
        return max(1, round(count * (self.first if epoch == 1 else self.hardest)))

    def epoch_steps(self, count: int) -> list[int]:
        """Steps of each epoch over `count` training images."""
        images = [self.epoch_images(epoch, count) for epoch in range(1, self.epochs + 1)]
        return [-(-number // self.batch_size) for number in images]


# What most recipes share. All settings were compared on validation folds: notebooks/search.ipynb.
_CYCLE = {"nesterov": True, "schedule": "one_cycle", "warm_up": 0.3}
_MOVED = {"rotation": 6.0, "shift": 0.75, "scale": 0.05}
_COMMON = {"batch_size": 64, "learning_rate": 0.15, "averaging": 0.995} | _CYCLE | _MOVED
_LONGER = _COMMON | {"averaging": 0.998, "epochs": 30}
_FAST = _COMMON | {"crop": 24, "first": 0.35, "hardest": 0.08, "label_smoothing": 0.1}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # The author's, from the notebook that printed the assignment's log: see `logged_runs`.
        Recipe("assignment", epochs=19, batch_size=32, learning_rate=0.01),
        Recipe("steady", **_COMMON, epochs=7, crop=24, hardest=0.25),
        Recipe("fast", **_FAST, epochs=9),
        # A net at a third of the cost per image, and four views, which cost no training.
        Recipe("faster", **_FAST | {"learning_rate": 0.2}, epochs=9, net="folded", views=4),
        Recipe("long", **_COMMON, epochs=20, crop=24, hardest=0.25),
        # Small nets do not overfit: every epoch takes all images. The whole image did better than
        # its middle on two folds: the net then averages over 4 x 4 places.
        Recipe("small", **_LONGER, net="p2976"),
        # Half the augmentation: on folds its gain is within the error.
        Recipe("tiny", **_LONGER | {"rotation": 3.0, "shift": 0.375, "scale": 0.025}, net="p1000"),
        # On folds, half the images do as well as all; with the assignment's net, four views
        # lower the loss and the errors.
        Recipe("views", **_LONGER, net="p7942", hardest=0.5, views=4),
    )
}


def get_recipe(name: str | None = None, changes: str = "", /, **overrides) -> Recipe:
    """The recipe called `name`, or `assignment`, with changes such as "epochs=1 rotation=0".

    `overrides` are changes, too; None leaves a field as it is. Your own net is imported.
    """
    name = "assignment" if name is None else name
    check("recipe", name, isinstance(name, str) and name in RECIPES, f"one of {', '.join(RECIPES)}")
    known = [field.name for field in fields(Recipe) if field.name != "name"]
    changed = _parse(changes)
    if unknown := [name for name in changed | overrides if name not in known]:
        hint = f"{nearest(unknown[0], known)}; it has {', '.join(known)}"
        raise ParameterError(f"a recipe has no field {unknown[0]!r}{hint}")
    given = {key: value for key, value in overrides.items() if value is not None}
    for key, value in given.items():
        if key in changed and changed[key] != value:
            raise ParameterError(f"{key} is {changed[key]} in the changes, {value} beside them")
    changed = given | changed
    if isinstance(net := changed.get("net"), str) and "." in net and ":" not in net:
        raise ParameterError(f"net {net}: did you mean {':'.join(net.rsplit('.', 1))!r}")
    recipe = dataclasses.replace(RECIPES[name], **changed)
    import_net(recipe.net)
    return recipe


def _parse(text: str) -> dict:
    """The fields and values in "epochs=1 rotation=0"; if a field comes twice, the last one wins."""
    check("changes", text, isinstance(text, str), "text such as 'epochs=1 rotation=0'")
    changes = {}
    for word in text.split():
        field, equals, value = word.partition("=")
        check("a change", word, equals, "a field, = and a value without spaces, as in epochs=1")
        try:
            changes[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            changes[field] = value
    return changes


def check_recipe(recipe: Recipe, with_net: bool = False) -> None:
    """Raise ParameterError unless `recipe` is a Recipe and, `with_net`, names a net in NETS."""
    check("recipe", recipe, isinstance(recipe, Recipe), "a Recipe, as get_recipe returns")
    expected = "of this library or typed by you, as get_recipe's net or --net: files import nothing"
    check("the recipe's net", recipe.net, not with_net or recipe.net in NETS, expected)


def make_net(recipe: Recipe) -> nn.Module:
    """The recipe's net, with random weights: call `set_seed` first to reproduce them."""
    check_recipe(recipe, with_net=True)
    net = NETS[recipe.net](crop=recipe.crop)
    return net if recipe.views == 1 else Views(net, recipe)


def differences(theirs: dict, ours: dict) -> list[str]:
    """How two recipes' fields, as dicts, differ: a phrase each. A lacking field has its default."""
    if not isinstance(theirs, dict):
        return ["no recipe there"]
    defaults = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
    theirs, ours = defaults | theirs, defaults | ours
    return [
        f"{name} is {theirs.get(name, 'unknown')} there, {ours.get(name, 'unknown')} here"
        for name in ours | theirs
        if theirs.get(name) != ours.get(name)
    ]


def recipe_table(recipe: Recipe) -> Table:
    """The assignment's recipe beside another, field by field, with a reason for each."""
    check_recipe(recipe)
    rows = [
        {
            "": field.name,
            "the assignment": f"{getattr(RECIPES['assignment'], field.name)}",
            recipe.name: f"{getattr(recipe, field.name)}",
            "why": field.metadata["reason"],
        }
        for field in fields(Recipe)
        if field.name != "name"
    ]
    return Table(rows, left=4)
