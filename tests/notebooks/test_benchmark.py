"""The benchmark: its table by hand, its rows in a file, its arguments."""

import json
import sys
from contextlib import nullcontext

import benchmark
import pytest
from benchmark import table

from mnist_lib import RECIPES
from tests.study.test_studies import mnist  # noqa: F401 (a fixture)


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["benchmark", *args])
    benchmark.main()


@pytest.fixture
def measured(monkeypatch):
    """What the processes that measure give, in their order; for None, this process measures."""
    made = []
    here = nullcontext(lambda function, *args: made.pop(0) or function(*args))
    monkeypatch.setattr(benchmark, "own_processes", lambda: here)
    return made


def test_rows_and_table_by_hand(sample, measured):
    """Medians of three rounds, taken by turns, scaled from 3,000 images to 60,000."""
    for theirs, ours, recipe in ((2, 1, 3), (9, 1, 1), (4, 1, 1.502)):
        measured += [theirs, ours, *[recipe] * len(RECIPES)]
    rows = benchmark.benchmark(sample, 3000, 3, threads=[2], batches=[32])
    assert [line.split() for line in table(rows).splitlines()[2:]] == [
        ["2", "32", "assignment", "80.0", "1.00"],
        ["2", "32", "train", "20.0", "4.00"],
        *(["2", str(r.batch_size), "recipe", name, "30.0"] for name, r in RECIPES.items()),
    ]


@pytest.mark.usefixtures("mnist")
def test_rows_are_printed_and_added_to_a_file(monkeypatch, measured, capsys, tmp_path):
    """Both ways are really measured."""
    measured += [None, None, *[1.0] * len(RECIPES)]
    file, sizes = tmp_path / "rows.jsonl", "--images 128 --rounds 1 --threads 1 --batches 16"
    file.write_text('{"way": "before"}\n')
    run(monkeypatch, *sizes.split(), "--file", str(file))
    before, *rows = map(json.loads, file.read_text().splitlines())
    assert before == {"way": "before"}
    assert [(row["way"], row["batch"]) for row in rows[:2]] == [("assignment", 16), ("train", 16)]
    assert {(row["threads"], row["rounds"], row["images"]) for row in rows} == {(1, 1, 128)}
    assert all(row["seconds"] > 0 and row["machine"] for row in rows)
    assert capsys.readouterr().out.endswith(f"{table(rows)}\n")


@pytest.mark.usefixtures("mnist")
def test_ways_beside_the_published_one(monkeypatch, capsys, tmp_path):
    file = tmp_path / "rows.jsonl"
    run(monkeypatch, "--published", "--rounds", "1", "--threads", "2", "--file", str(file))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    ways = ["published, epochs 1", "published, epochs 2"]
    assert [row["way"] for row in rows] == [*ways, "whole faster", "whole fast", "whole steady"]
    assert all(row["seconds"] > 0 and 0 <= row["accuracy"] <= 100 for row in rows)
    assert {(row["threads"], row["rounds"]) for row in rows} == {(2, 1)}
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rounds", "0"], "whole numbers from 1 to 10**6, got '0'"),
        (["--batches", "32", "x"], "whole numbers from 1 to 10**6, got 'x'"),
        (["--images", "100"], "at most 100, the number of training images, got 128"),
    ],
)
@pytest.mark.usefixtures("mnist")
def test_bad_arguments_are_one_sentence(monkeypatch, capsys, args, message):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *args)
    assert message in capsys.readouterr().err + str(caught.value)


def test_whole_runs_beside_busy_processes(sample, measured):
    """By hand: the seconds' median, the threads of the last."""
    measured += [(3.0, 2), (4.0, 1)] * 3 + [(5.0, 2), (2.0, 1)] * 3
    rows = benchmark.beside_busy_processes(sample, 2, [0, 1, 2])
    assert [(row["busy"], row["threads"], row["seconds"]) for row in rows] == [
        (busy, threads, seconds) for busy in range(3) for threads, seconds in ((2, 4.0), (1, 3.0))
    ]
    ways = {row["way"] for row in rows}
    assert ways == {"whole fast, threads of torch", "whole fast, threads chosen"}
