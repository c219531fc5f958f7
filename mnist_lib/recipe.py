"""Recipes: every hyper-parameter of a training run, as data."""

import dataclasses
from dataclasses import dataclass

from .checks import is_finite, is_whole
from .errors import ParameterError

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training run.

    Raises ParameterError for a value that makes no sense.
    """

    name: str
    epochs: int  # passes over the training images
    batch_size: int  # images a step; the last batch of an epoch may be smaller
    learning_rate: float  # step size, constant
    momentum: float = 0.9  # of "sgd", per step; "adam" has its own betas (0.9, 0.999)
    optimizer: str = "sgd"  # "sgd" or "adam"

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise ParameterError(f"{name} takes a whole number of at least 1, not {value!r}")
        if not is_finite(self.learning_rate) or self.learning_rate <= 0:
            raise ParameterError(
                f"learning_rate takes a number above 0, not {self.learning_rate!r}"
            )
        if not is_finite(self.momentum) or not 0 <= self.momentum < 1:
            raise ParameterError(
                f"momentum takes a number from 0 to less than 1, not {self.momentum!r}"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ParameterError(
                f"optimizer takes one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}"
            )


# The assignment records neither optimiser nor learning rate. `logged` is the plausible recipe
# whose test curve comes nearest to the logged one; notebooks/records/README.md has the comparison.
RECIPES = {
    "logged": Recipe("logged", epochs=19, batch_size=32, learning_rate=0.05),
}


def get_recipe(name: str, **overrides) -> Recipe:
    """The recipe called `name`, with the `overrides` that are not None.

    Raises ParameterError for an unknown recipe, an unknown field or a value that makes no sense.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ParameterError(f"recipe takes one of {', '.join(RECIPES)}, not {name!r}")
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"name"}
    unknown = sorted(set(overrides) - fields)
    if unknown:
        raise ParameterError(f"a recipe has no field {unknown[0]!r}; it has {sorted(fields)}")
    changes = {key: value for key, value in overrides.items() if value is not None}
    return dataclasses.replace(RECIPES[name], **changes)
