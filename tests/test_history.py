"""Histories counted by hand, written as lines of JSON, and bent in every way."""

import dataclasses
import json

import numpy as np
import pandas
import pytest

from mnist_lib import DataError, Epoch, History, ParameterError, RunError, load_history, load_study


def make(*correct: int, images: int = 10_000, source: str = "mnist", **record) -> History:
    """A history of the given counts."""
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
    assert history.first_to_reach(9951) is None
    assert (history.images, history.seconds) == (10_000, 7 * 25)


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ((), "at least one epoch"),
        (make(9900, 9910).epochs[1:], "epoch 1 of a history is numbered 2"),
        (make(9900).epochs + make(99, 98, images=100).epochs[1:], "tested on 100 images"),
    ],
)
def test_epochs_that_are_no_run(epochs, message):
    with pytest.raises(DataError, match=message):
        History(epochs)


def test_json_is_one_line_of_columns():
    history = make(9900, 9944, source="sample", seed=3, device="a\nb\u2028", recipe={"epochs": 2})
    text = history.to_json()
    assert History.from_json(text) == history
    assert text.index("\n") == len(text) - 1
    told = {"seed": 3, "source": "sample", "images": 10_000, "correct": [9900, 9944]}
    assert json.loads(text) | told == json.loads(text)
    assert "train_correct" not in text, "as in runs made before it was counted"
    counted = History(tuple(dataclasses.replace(epoch, train_correct=59_000) for epoch in history))
    assert History.from_json(counted.to_json()) == counted


GOOD = make(9900, 9944).to_json()
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


def test_study_is_a_file_of_runs(tmp_path):
    path = tmp_path / "study.jsonl"
    runs = [make(9900, 9944, seed=1), make(9910, 9930, seed=2, source="validation")]
    path.write_text("".join(run.to_json() for run in runs))
    assert load_study(path) == runs
    table = pandas.read_json(path, lines=True)
    assert table["seed"].tolist() == [1, 2]
    assert table["correct"].tolist() == [[9900, 9944], [9910, 9930]]


@pytest.mark.parametrize("end", range(0, len(GOOD), 10))
def test_a_last_line_cut_short_is_passed_over(tmp_path, end):
    (tmp_path / "study.jsonl").write_text(GOOD + GOOD[:end])
    assert load_study(tmp_path / "study.jsonl") == [make(9900, 9944)]


@pytest.mark.parametrize("line", ["", "{}", GOOD[:-20], GOOD.replace("9900", "-1").strip()])
def test_malformed_line_is_named(tmp_path, line):
    (tmp_path / "study.jsonl").write_text(f"{GOOD}{line}\n{GOOD}")
    with pytest.raises(DataError, match=r"study\.jsonl, line 2 is not a history"):
        load_study(tmp_path / "study.jsonl")


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


@pytest.mark.parametrize("epochs", [None, [{}], Epoch(1, 10, 9, 0.1, 0.1, 5, 1.0)])
def test_what_are_no_epochs_is_refused(epochs):
    with pytest.raises(DataError, match="a tuple of Epoch"):
        History(epochs)


@pytest.mark.parametrize("record", [None, {"recipe": None}, {"recipe": "fast"}])
def test_what_is_no_record_is_refused(record):
    with pytest.raises(DataError, match="must be dictionaries"):
        History(make(9900).epochs, record=record)


def test_numpys_numbers_and_paths_are_saved(tmp_path):
    epoch = Epoch(1, np.int64(10), np.int64(9), np.float32(0.5), 0.1, np.int32(5), 1.0)
    history = History((epoch,), record={"seed": np.int64(3), "folder": tmp_path})
    again = History.from_json(history.to_json())
    assert again.epochs == history.epochs
    assert again.record == {"seed": 3, "folder": str(tmp_path)}


@pytest.mark.parametrize("text", ["[1, 2]", "null", '{"a": 1}', "hello"])
def test_a_file_that_is_no_study_is_refused_by_its_one_line(tmp_path, text):
    file = tmp_path / "study.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=r"study.jsonl, line 1 is not a history"):
        load_study(file)
