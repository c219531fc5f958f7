"""Logs and histories: against the assignment's log, counted by hand, and bent in every way."""

import dataclasses
import json

import pytest

from mnist_lib import Epoch, History, LogError, logged_run, parse_log

# Read off the assignment's log by eye.
CORRECT = [9861, 9870, 9886, 9916, 9915, 9899, 9912, 9932, 9939, 9930]
CORRECT += [9937, 9932, 9920, 9930, 9932, 9936, 9944, 9931, 9938]

GOOD = """\
  0%|          | 0/1875 [00:00<?, ?it/s]some.py:27: UserWarning: Implicit dimension
loss=0.1 batch_id=1874: 100%|██████████| 1875/1875 [00:25<00:00, 74.70it/s]
  0%|          | 0/1875 [00:00<?, ?it/s]
Test set: Average loss: 0.0468, Accuracy: 9861/10000 (98.6100%)

loss=0.2 batch_id=1874: 100%|██████████| 1875/1875 [00:24<00:00, 76.29it/s]

Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.7000%)
"""


def make(*correct: int, images: int = 10_000) -> History:
    """A history of the given counts."""
    return History(
        tuple(
            Epoch(number, 0.05, right, images, 0.1, 1875, 25.0, 75.0)
            for number, right in enumerate(correct, 1)
        )
    )


def test_logged_run():
    logged = logged_run()
    assert [epoch.correct for epoch in logged] == CORRECT
    assert logged.images == 10_000
    first, last = logged.epochs[0], logged.epochs[-1]
    assert (first.test_loss, first.last_batch_loss) == (0.0468, 0.13960422575473785)
    assert (first.seconds, first.batches_per_second, first.batches) == (25, 74.70, 1875)
    assert (last.test_loss, last.last_batch_loss) == (0.0200, 7.31154577806592e-05)


def test_the_logged_claim_is_the_17th_line_not_the_18th():
    logged = logged_run()
    assert len(logged) == 19
    assert logged.first_to_reach(9944).epoch == 17
    assert logged.best.epoch == 17
    assert logged.epochs[17].correct == 9931


def test_answers():
    history = make(9900, 9950, 9940, 9950, 9930, 9920, 9910)
    assert history.best.epoch == 2, "the first of equals"
    assert history.final.correct == 9910
    assert history.mean_of_last_five == pytest.approx((9940 + 9950 + 9930 + 9920 + 9910) / 500)
    assert history.first_to_reach(9941).epoch == 2
    assert history.first_to_reach(9951) is None
    assert history.best.score == "9950/10000 (99.50%)"


def test_mean_of_last_five_of_fewer_epochs():
    assert make(9800, 9900).mean_of_last_five == pytest.approx(98.5)


def test_log_round_trip():
    logged = logged_run()
    assert parse_log(logged.log()) == logged


def test_printed_lines_are_the_assignments():
    epoch = logged_run().epochs[0]
    assert epoch.test_line() == "Test set: Average loss: 0.0468, Accuracy: 9861/10000 (98.6100%)"
    assert epoch.train_line() == (
        "loss=0.13960422575473785 batch_id=1874: 100%|██████████| 1875/1875 "
        "[00:25<00:00, 74.70it/s]"
    )


def test_json_round_trip_has_a_line_an_epoch():
    history = dataclasses.replace(make(9900, 9944), record={"seed": 3}, source="sample")
    text = history.to_json()
    assert History.from_json(text) == history
    assert json.loads(text)["epochs"][1]["correct"] == 9944
    assert sum('"correct"' in line for line in text.splitlines()) == 2


def test_carriage_returns_warnings_and_slow_bars():
    log = (
        "loss=2.3 batch_id=0:   0%|          | 1/125 [00:02<04:08,  2.00s/it]\r"
        "loss=0.5 batch_id=124: 100%|██████████| 125/125 [1:04:10<00:00, 30.80s/it]\n"
        "Test set: Average loss: 0.5000, Accuracy: 820/1000 (82.0000%)\r\n"
    )
    (epoch,) = parse_log(log)
    assert epoch.seconds == 3850
    assert epoch.batches_per_second == pytest.approx(1 / 30.8)
    assert epoch.last_batch_loss == 0.5


def test_redrawn_last_bar_is_one_epoch():
    bar = "loss=0.5 batch_id=124: 100%|██████████| 125/125 [00:10<00:00, 12.00it/s]"
    log = f"{bar}\r{bar}\nTest set: Average loss: 0.5, Accuracy: 820/1000 (82%)\n"
    assert len(parse_log(log)) == 1


LINES = GOOD.splitlines()


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "line 1: the log ends without"),
        ("no log at all\nnone", "line 2: the log ends without"),
        ("\n".join(LINES[:6]), "line 6: the log is cut short at batch 1875 of 1875 of epoch 2"),
        (
            GOOD + "\nloss=0.3 batch_id=99:   5%|▌  | 100/1875 [00:01<00:24, 74.0it/s]",
            "line 10: the log is cut short at batch 100 of 1875 of epoch 3",
        ),
        (
            GOOD + "  0%|          | 0/1875 [00:00<?, ?it/s]",
            "line 9: the log is cut short: epoch 3 begins",
        ),
        (GOOD.replace("batch_id=1874", "batch_id=7"), "line 2: the last of 1875 batches cannot"),
        (GOOD[:-20], "line 8: not a whole test line"),
        (GOOD.replace("[00:24<", "[x<"), "line 6: not a finished progress bar"),
        (GOOD.replace("\n".join(LINES[3:5]), ""), "line 5: a new progress bar, but no"),
        (GOOD.replace(LINES[5], ""), "line 8: a 'Test set' line without the progress bar"),
        (GOOD.replace("9870/10000", "9871/10000"), r"line 8: 9871/10000 is 98.7100%, not 98.7000%"),
        (GOOD.replace("9870/10000", "10870/10000"), "line 8: 10870 correct of 10000"),
        (GOOD.replace("9870/10000", "0/0"), "line 8: 0 correct of 0"),
        (GOOD.replace("9870/10000", "4935/5000"), "line 8: tested on 5000 images"),
        (GOOD.replace("0.0384", "nan"), "line 8: test_loss must be a finite number"),
        (GOOD.replace("0.0384", "0.03.84"), "line 8: could not convert"),
        (GOOD.replace("loss=0.2", "loss=inf"), "line 8: last_batch_loss must be a finite number"),
        (
            GOOD.replace("1875/1875 [00:24", "1800/1875 [00:24"),
            "line 8: .* stopped at batch 1800 of 1875",
        ),
    ],
)
def test_malformed_logs_name_the_line(log, message):
    with pytest.raises(LogError, match=message):
        parse_log(log)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"source": "mnist", "record": {}, "epochs": []}',
        '{"source": "mnist", "record": {}, "epochs": [{"epoch": 1}]}',
        make(9900).to_json()[:-20],
        make(9900).to_json().replace("9900", "true"),
        make(9900).to_json().replace("9900", "-1"),
        make(9900).to_json().replace("0.05", "NaN"),
        make(9900).to_json().replace("0.05", "1" + "0" * 400),
        make(9900).to_json().replace('"epoch": 1', '"epoch": 2'),
        "[" * 100_000,
    ],
)
def test_malformed_histories_are_refused(text):
    with pytest.raises(LogError, match=r"here\.json is not a history"):
        History.from_json(text, name="here.json")
