"""Tables in their three forms, means with their spread, and what a table tells of a run."""

import dataclasses

import pytest

from mnist_lib import RECIPES, History, Table, epochs_table, get_recipe, logged_run, recipe_table
from mnist_lib.tables import REASONS, lay_out, mean_and_error, mean_and_sd

from .test_history import make


def test_columns_are_aligned():
    rows = [("threads", "way", "s"), ("1", "train", "7"), ("16", "a", "10.5")]
    assert lay_out(rows, left=2) == [
        "threads  way       s",
        "--------------------",
        "1        train     7",
        "16       a      10.5",
    ]


def test_a_table_is_text_markdown_and_html():
    table = Table([{"": "<a", "seeds": "1"}, {"": "b", "seeds": ""}])
    assert str(table) == "    seeds\n---------\n<a      1\nb"
    assert table.markdown() == "|  | seeds |\n| --- | ---: |\n| <a | 1 |\n| b |  |"
    html = table._repr_html_()
    assert html.count("<tr>") == 3
    assert '<td style="text-align: left">&lt;a</td><td style="text-align: right">1</td>' in html


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


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_recipe_table_hides_no_difference(recipe):
    assert set(REASONS) == dataclasses.asdict(recipe).keys() - {"name"}
    for row, field in zip(recipe_table(recipe).rows, REASONS, strict=True):
        assert row["the assignment"] == str(getattr(RECIPES["assignment"], field))
        assert row[recipe.name] == str(getattr(recipe, field))


def test_a_logs_epochs_have_a_table_too():
    rows = epochs_table(logged_run()).rows
    assert rows[16] == {
        "epoch": "17 of 19",
        "training %": "",
        "test %": "99.44",
        "test loss": f"{logged_run().epochs[16].test_loss:.4f}",
    }
