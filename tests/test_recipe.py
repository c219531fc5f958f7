"""Recipes have the assignment's numbers, and limits for every field; differences are named."""

from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest

from mnist_lib import RECIPES, Net, ParameterError, Recipe, get_recipe
from mnist_lib.recipe import differences

VALUES = {  # for fields with the same limits: some taken, some refused, and the message
    "name": (["a-b_1", "x" * 40], ["", "x" * 41, "../up", "a/b", ".", "a b", None, 3], "letters"),
    "epochs batch_size": ([1, 10**6], [0, -1, 2.5, True, "big"], "a whole number of at least 1"),
    "learning_rate": ([1, 1e-9], [0, -1, "0.1", float("nan"), 10**400], "a number above 0"),
    "momentum warm_up scale": ([0, 0.999], [-0.1, 1, 1.0, "0.9", True], "0 to less than 1"),
    "averaging label_smoothing": ([0, 0.999], [-0.1, 1, 1.0, "0.9", True], "0 to less than 1"),
    "weight_decay rotation shift": ([0, 4, 0.5], [-4, "1", float("inf"), 10**400], "at least 0"),
    "first hardest": ([0.001, 1], [0, 1.01, 1.5, "half", False], "a number above 0, at most 1"),
    "crop": ([20, 24, 28], [18, 30, 21, 24.0, "24"], "an even number from 20 to 28"),
    "views": ([1, 4], [0, 2, 4.0, True, "4"], "1 or 4"),
    "nesterov": ([True, False], [1, "no"], "True or False"),
    "optimizer": (["sgd", "adam"], ["magic", 3], "one of sgd, adam"),
    "schedule": (["constant", "one_cycle"], ["step"], "one of constant, one_cycle"),
    "net": (["assignment", "sprint", "p998"], ["big", "p999", 998], "one of assignment, sprint, "),
}


def test_assignment_is_as_its_author_published_it():
    published = {"epochs": 19, "batch_size": 32, "learning_rate": 0.01, "momentum": 0.9, "crop": 28}
    published |= {"optimizer": "sgd", "net": "assignment", "schedule": "constant", "views": 1}
    published |= {"nesterov": False, "first": 1.0, "hardest": 1.0}
    nothing = ("weight_decay", "warm_up", "rotation", "shift", "scale")
    published |= dict.fromkeys((*nothing, "averaging", "label_smoothing"), 0.0)
    assert asdict(get_recipe("assignment", batch_size=None)).items() >= published.items()
    with pytest.raises(FrozenInstanceError):
        RECIPES["assignment"].epochs = 3


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_every_field_has_its_limits(field):
    ((taken, refused, expected),) = (
        values for names, values in VALUES.items() if field in names.split()
    )
    for value in taken:
        changes = {"shift": 1.0} | {field: value}  # four views need a shift
        assert getattr(replace(RECIPES["assignment"], **changes), field) == value
    for value in refused:
        with pytest.raises(ParameterError, match=f"^{field} must be .*{expected}.*, got "):
            replace(RECIPES["assignment"], **{field: value})


def test_unknown_recipes_and_fields():
    assert get_recipe(None) == get_recipe() == RECIPES["assignment"]
    for name in ("fastest", ["fast"]):
        with pytest.raises(ParameterError, match=f"recipe must be one of {', '.join(RECIPES)}, "):
            get_recipe(name)
    with pytest.raises(ParameterError, match=r"net must be one of .*, got <class"):
        get_recipe(net=Net)
    for field, message in (
        ("layers", "no field 'layers'; it has epochs, "),
        ("epoch", "no field 'epoch'; did you mean 'epochs'; it has"),
        ("momentum", "nesterov needs a momentum"),
    ):
        with pytest.raises(ParameterError, match=message):
            get_recipe("fast", **{field: 0})
    with pytest.raises(ParameterError, match="4 views need a rotation or a shift above 0"):
        get_recipe("assignment", views=4)


def test_changes_are_read_from_text():
    text = " epochs=9  epochs=1 rotation=0 nesterov=False optimizer=adam\tnet=p998 "
    changes = {"rotation": 0, "nesterov": False, "optimizer": "adam", "net": "p998"}
    assert get_recipe("fast", text, epochs=1, crop=None) == get_recipe("fast", epochs=1, **changes)
    for text, message in (
        ("epoch=1", "no field 'epoch'; did you mean 'epochs'"),
        ("epochs", "a change must be a field, = and a value .* got 'epochs'"),
        ("epochs={[]:1}", "epochs must be a whole number of at least 1, got '{"),
        ("net=p998", "net is p998 in the changes, sprint beside them"),
        (["epochs=1"], "changes must be text such as 'epochs=1 rotation=0', got"),
    ):
        with pytest.raises(ParameterError, match=message):
            get_recipe("fast", text, net="sprint")


@pytest.mark.parametrize(
    ("first", "hardest", "count", "images", "steps"),
    [
        (1.0, 1.0, 500, [500, 500, 500], [8, 8, 8]),
        (1.0, 0.25, 60_000, [60_000, 15_000, 15_000], [938, 235, 235]),
        (0.5, 1.0, 500, [250, 500, 500], [4, 8, 8]),
        (0.35, 0.08, 60_000, [21_000, 4_800, 4_800], [329, 75, 75]),
        (0.001, 0.001, 100, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_images_and_steps_of_each_epoch(first, hardest, count, images, steps):
    recipe = get_recipe("fast", epochs=3, first=first, hardest=hardest)
    assert [recipe.epoch_images(epoch, count) for epoch in (1, 2, 3)] == images
    assert recipe.epoch_steps(count) == steps


def test_differences_are_named_and_lacking_fields_are_defaults():
    here = asdict(RECIPES["assignment"])
    there = {"name": "assignment", "epochs": 19, "batch_size": 32, "learning_rate": 0.05, "old": 1}
    text = "; ".join(differences(there, here))
    assert text == "learning_rate is 0.05 there, 0.01 here; old is 1 there, unknown here"
    assert differences(None, here) != differences(here, here) == []
