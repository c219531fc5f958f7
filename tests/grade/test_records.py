"""The records that ship with the library: read, and consistent with each other."""

import pytest

from mnist_lib import ParameterError, recorded_studies
from mnist_lib.grade import records


def test_recorded_mistakes_are_those_of_the_recorded_seeds():
    for recipe in ("steady", "fast"):
        mistakes, runs = records.recorded_mistakes()[recipe], recorded_studies()[recipe]
        wrong = {run.record["seed"]: 10_000 - run.final.correct for run in runs}
        assert {seed: len(found) for seed, found in mistakes.items()} == wrong
        counts = records.shared_mistakes(recipe)
        assert sum(counts.values()) == sum(wrong.values())
        assert list(counts.values()) == sorted(counts.values(), reverse=True)
    with pytest.raises(ParameterError, match="one of"):
        records.shared_mistakes("quick")


def test_label_errors_are_doubted_by_their_votes():
    errors = records.label_errors()
    assert len({error["index"] for error in errors}) == 15
    assert all(error["votes"][0] < 3 and sum(error["votes"]) == 5 for error in errors)


def test_the_table_of_own_digits_has_both_ways():
    rows = records.own_digits_table().rows
    assert len(rows) == 8
    others = rows[:3] + rows[4:]  # than MNIST's own images, for which the raw way is right
    assert all(float(r["prepare, % right"]) > 90 > float(r["raw, % right"]) for r in others)
