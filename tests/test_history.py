"""Histories are counted by hand, written as lines of JSON, and damaged in many ways."""

import dataclasses
import json

import numpy as np
import pytest

from mnist_lib import (
    DataError,
    Epoch,
    History,
    ParameterError,
    RunError,
    load_history,
    load_study,
    summary,
)
from mnist_lib.base.files import append_line


def make(*correct: int, images: int = 10_000, source: str = "mnist", **record) -> History:
    """Return a history with these counts of correct images."""
    rows = enumerate(correct, 1)
    epochs = (Epoch(number, images, right, 0.05, 0.1, 1875, 25.0) for number, right in rows)
    return History(tuple(epochs), source, record)


def test_answers():
    history = make(9900, 9950, 9940, 9950, 9930, 9920, 9910)
    assert (history.best.epoch, history.final.correct) == (2, 9910), "the first of equals"
    assert history.best.score == "9950/10000 (99.50%)"
    assert history.mean_of_last_five == pytest.approx((9940 + 9950 + 9930 + 9920 + 9910) / 500)
    assert make(9800, 9900).mean_of_last_five == pytest.approx(98.5)
    assert history.first_to_reach(9941).epoch == 2
    mixed = [make(9900), make(9900, source="validation")]
    assert summary(mixed).startswith("2 runs of many kinds, 0 with")
    assert history.first_to_reach(9951) is None
    assert (history.images, history.seconds) == (10_000, 7 * 25)


ONE = make(9900).epochs


@pytest.mark.parametrize(
    ("epochs", "record", "message"),
    [
        ((), {}, "at least one Epoch"),
        (make(9900, 9910).epochs[1:], {}, "epoch 1 of a history is numbered 2"),
        (ONE + make(99, 98, images=100).epochs[1:], {}, "tested on 100 images"),
        *((none, {}, "a tuple of at least one Epoch") for none in (None, [{}], ONE[0])),
        *((ONE, bad, "must be dictionaries") for bad in (None, {"recipe": None}, {"recipe": "a"})),
    ],
)
def test_what_is_no_run_is_refused(epochs, record, message):
    with pytest.raises(DataError, match=message):
        History(epochs, record=record)


def test_json_is_one_line_of_columns():
    history = make(9900, 9944, source="sample", seed=3, device="a\nb\u2028", recipe={"epochs": 2})
    text = history.to_json()
    assert History.from_json(text) == history
    assert text.index("\n") == len(text) - 1
    expected = {"seed": 3, "source": "sample", "images": 10_000, "correct": [9900, 9944]}
    assert json.loads(text) | expected == json.loads(text)
    assert "train_correct" not in text, "as in runs made before it was counted"
    counted = History(tuple(dataclasses.replace(epoch, train_correct=59_000) for epoch in history))
    assert History.from_json(counted.to_json()) == counted


GOOD = make(9900, 9944).to_json()
BAD = ("", "{}", GOOD[:-20], GOOD.replace("9900", "-1").strip())
LISTS = ("correct", "test_loss", "last_batch_loss", "batches", "seconds")


@pytest.mark.parametrize(
    "text",
    [
        *("", "<html>", "[]", "null", "{}", "[" * 100_000, GOOD[:-20]),
        json.dumps(json.loads(GOOD) | {name: [] for name in LISTS}),
        *(GOOD.replace("[9900, 9944]", other) for other in ("[9900]", "9900", "[true, 9944]")),
        *(GOOD.replace("9900", other) for other in ("-1", "10001", "null")),
        *(GOOD.replace("0.05", other) for other in ("NaN", "1" + "0" * 400, '"0.05"')),
        *(GOOD.replace(f'"{name}"', '"other"') for name in ("source", "images", *LISTS)),
    ],
)
def test_malformed_histories_are_refused(text):
    with pytest.raises(DataError, match=r"here\.json is not a history"):
        History.from_json(text, name="here.json")


@pytest.mark.parametrize("end", range(0, len(GOOD), 10))
def test_study_is_a_file_of_runs_whose_last_line_may_be_cut_short(tmp_path, end):
    runs = [make(9900, 9944, seed=1), make(9910, 9930, seed=2, source="validation")]
    lines = [run.to_json() for run in runs]
    (tmp_path / "study.jsonl").write_text("".join(lines) + GOOD[:end])
    assert load_study(tmp_path / "study.jsonl") == runs


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *((text, 1) for text in ("[1, 2]", "null", '{"a": 1}', "hello")),
        *((f"{GOOD}{bad}\n{GOOD}", 2) for bad in filter(None, BAD)),
    ],
)
def test_malformed_line_is_named(tmp_path, text, line):
    (tmp_path / "study.jsonl").write_text(text)
    with pytest.raises(DataError, match=rf"study\.jsonl, line {line} is not a history"):
        load_study(tmp_path / "study.jsonl")


A, B = (make(9900, seed=seed, memory=1).to_json() for seed in (1, 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"\0{A}\n \t\r\n{B}", "2 skipped: line 2 (blank), line 3 (blank)"),
        (f"{A}\0\0\n{B}\0\0", "2 skipped: line 2 (blank), line 4 (blank)"),
        (f"{A}{B[:-1]}\0\0", ""),
        (f"{A}{B}{B[:40]}\0\0", ""),
        (A + B + A.replace("1}", "2}"), "1 skipped: line 3 (a run of an earlier line)"),
    ],
)
def test_what_power_loss_and_second_studies_leave_is_skipped(tmp_path, content, said, capsys):
    """Once it is said; and the next run is added as if it were not there."""
    path, runs = tmp_path / "study.jsonl", [History.from_json(line) for line in (A, B)]
    path.write_text(content)
    assert load_study(path) == load_study(path) == runs
    assert capsys.readouterr().err == (f"{path}, {said}\n" if said else "")
    append_line(path, GOOD)
    assert load_study(path) == [*runs, History.from_json(GOOD)]


def test_two_nets_of_one_size_and_seed_are_two_runs(tmp_path):
    path, other = tmp_path / "study.jsonl", A.replace("[0.05]", "[0.06]")
    path.write_text(A + other)
    assert load_study(path) == [History.from_json(line) for line in (A, other)]


@pytest.mark.parametrize("load", [load_history, load_study])
def test_what_cannot_be_read(tmp_path, load):
    path = tmp_path / "history.json"
    with pytest.raises(RunError, match=r"history\.json cannot be read: No such file"):
        load(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(RunError, match=r"history\.json is not a text file"):
        load(path)
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"history\.json.* is not a history"):
        load(path)
    with pytest.raises(ParameterError, match="path must be a path, got None"):
        load(None)


def test_numpys_numbers_and_paths_are_saved(tmp_path):
    epoch = Epoch(1, np.int64(10), np.int64(9), np.float32(0.5), 0.1, np.int32(5), 1.0)
    history = History((epoch,), record={"seed": np.int64(3), "folder": tmp_path})
    again = History.from_json(history.to_json())
    assert again.epochs == history.epochs
    assert again.record == {"seed": 3, "folder": str(tmp_path)}
