"""Tables have three forms; means have their spread; a run's tables show what it did."""

import dataclasses

import evidence
import pytest

from mnist_lib import RECIPES, History, Table, epochs_table, get_recipe, recipe_table
from mnist_lib.base.tables import count_and_interval, mean_and_error, mean_and_sd
from tests.test_history import make


def test_a_table_is_aligned_text_markdown_and_html():
    table = Table([{"": "<a", "way": "train", "s": "7"}, {"": "b", "way": "", "s": "10.5"}], left=2)
    assert str(table).splitlines() == [
        "    way       s",
        "---------------",
        "<a  train     7",
        "b          10.5",
    ]
    assert evidence.markdown(table) == (
        "|  | way | s |\n| --- | --- | ---: |\n| <a | train | 7 |\n| b |  | 10.5 |"
    )
    html = table._repr_html_()
    assert html.count("<tr>") == 3
    assert '<td style="text-align: left">&lt;a</td><td style="text-align: left">train</td>' in html
    assert '<td style="text-align: right">7</td>' in html


@pytest.mark.parametrize(
    ("function", "values", "text"),
    [
        (mean_and_sd, [99.0, 99.1, 99.2], "99.100 ± 0.100"),
        (mean_and_sd, [99.0], "99.000"),
        (mean_and_error, [0.1, 0.3], "+0.200 ± 0.100"),
        (mean_and_error, [-0.1, -0.3, -0.2, -0.2], "-0.200 ± 0.041"),
        (mean_and_error, [0.0], "+0.000"),
    ],
)
def test_means_by_hand(function, values, text):
    assert function(iter(values)) == text


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [
        *((0, 10, "0 of 10 (0 to 31%)"), (1, 20, "1 of 20 (0 to 25%)")),
        *((9, 10, "9 of 10 (55 to 100%)"), (10, 10, "10 of 10 (69 to 100%)")),
        *((4, 20, "4 of 20 (6 to 44%)"), (6, 10, "6 of 10 (26 to 88%)")),  # as in tables
        *((43, 62, "43 of 62 (56 to 80%)"), (5000, 10_000, "5000 of 10000 (49 to 51%)")),
    ],
)
def test_intervals_of_counts(count, total, text):
    assert count_and_interval(count, total) == text


def test_epochs_table_by_hand():
    recipe = dataclasses.asdict(get_recipe("fast", epochs=3, first=0.5, hardest=0.1))
    run = make(9900, 9944, train_images=1000, recipe=recipe)
    assert [row["training %"] for row in epochs_table(run).rows] == ["", ""], "not counted then"
    counts = zip(run, (400, 99), strict=True)
    run = History(tuple(dataclasses.replace(e, train_correct=n) for e, n in counts), "", run.record)
    assert [tuple(row.values())[:4] for row in epochs_table(run).rows] == [
        ("1 of 3", "80.00", "99.00", "0.0500"),
        ("2 of 3", "99.00", "99.44", "0.0500"),
    ]
    (_, second) = epochs_table(make(9900, 9944)).rows  # a log has no recipe and no training counts
    expected = {"epoch": "2 of 2", "training %": "", "test %": "99.44", "test loss": "0.0500"}
    assert second == expected


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_recipe_table_hides_no_difference(recipe):
    ours, theirs = dataclasses.asdict(recipe), dataclasses.asdict(RECIPES["assignment"])
    rows = {row[""].replace(" ", "_"): row for row in recipe_table(recipe).rows}
    assert rows.keys() == ours.keys() - {"name"}
    for field, row in rows.items():
        assert row["the assignment"] == str(theirs[field])
        assert row[recipe.name] == str(ours[field])
