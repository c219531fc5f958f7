"""Logs: the assignment's, counted by hand; what training prints; and logs bent in every way."""

import contextlib
import io
import re
import time
from importlib import resources

import pytest
import torch
from tqdm import tqdm

from mnist_lib import DataError, RunError, get_recipe, log, make_net, train
from mnist_lib.log import Progress, format_log, logged_run, logged_runs, parse_log

# Read off the assignment's log by eye.
CORRECT = [9861, 9870, 9886, 9916, 9915, 9899, 9912, 9932, 9939, 9930]
CORRECT += [9937, 9932, 9920, 9930, 9932, 9936, 9944, 9931, 9938]
RECIPE = get_recipe("assignment", epochs=2, batch_size=64)


def test_logged_run():
    logged = logged_run()
    assert [epoch.correct for epoch in logged] == CORRECT
    assert logged.images == 10_000
    first, last = logged.epochs[0], logged.epochs[-1]
    assert (first.test_loss, first.last_batch_loss) == (0.0468, 0.13960422575473785)
    assert (first.batches, first.seconds) == (1875, pytest.approx(25.1004, abs=1e-4))
    assert (last.test_loss, last.last_batch_loss) == (0.0200, 7.31154577806592e-05)


def test_the_logged_claim_is_the_17th_line_not_the_18th():
    logged, second = logged_runs()
    assert len(logged) == len(second) == 19
    assert logged.first_to_reach(9944).epoch == logged.best.epoch == 17
    assert logged.epochs[17].correct == 9931
    assert (second.best.epoch, second.best.correct, second.final.correct) == (14, 9942, 9932)


def test_seconds_agree_with_the_rate_and_the_clock_of_each_line():
    text = resources.files("mnist_lib").joinpath("logged_run.txt").read_text(encoding="utf-8")
    bars = re.findall(r"1875/1875 \[00:(\d\d)<00:00, ([\d.]+)it/s\]", text)
    for epoch, (clock, rate) in zip(logged_run(), bars, strict=True):
        assert 1875 / epoch.seconds == pytest.approx(float(rate), abs=0.005)
        assert int(clock) - 0.01 <= epoch.seconds < int(clock) + 1.01


def test_log_round_trip():
    assert parse_log(format_log(logged_run())) == logged_run()


def test_printed_lines_are_the_assignments():
    epoch = logged_run().epochs[0]
    assert log.test_line(epoch) == "Test set: Average loss: 0.0468, Accuracy: 9861/10000 (98.6100%)"
    assert log.train_line(epoch) == (
        "loss=0.13960422575473785 batch_id=1874: 100%|██████████| 1875/1875 "
        "[00:25<00:00, 74.70it/s]"
    )


def test_what_training_prints_reads_back(sample):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        history = train(make_net(RECIPE), sample.take(500), RECIPE)
    for read, made in zip(parse_log(shown.getvalue()), history, strict=True):
        assert (read.correct, read.batches) == (made.correct, made.batches)
        assert read.last_batch_loss == made.last_batch_loss
        assert read.test_loss == pytest.approx(made.test_loss, abs=5e-5)
        assert read.seconds <= made.seconds + 1
    assert parse_log(format_log(history)).final.correct == history.final.correct


def test_only_test_lines_go_to_stdout(sample, capsys):
    history = train(make_net(RECIPE), sample.take(64), RECIPE)
    assert capsys.readouterr().out.splitlines() == [log.test_line(epoch) for epoch in history]


def steps(losses, verbose=False, pause=0.0):
    """An epoch of these losses: of two images a batch, one is right; its end is waited for."""
    output, targets = torch.eye(10)[:2].log(), torch.tensor([0, 5])
    with Progress(3, RECIPE, len(losses), verbose) as progress:
        for number, loss in enumerate(losses, 1):
            time.sleep(pause * (number == len(losses)))
            if not progress.step(torch.tensor(loss), output, targets):
                break
    return progress


def test_a_slow_last_batch(capsys):
    """The bar is never shown full with the loss of an earlier batch."""
    progress = steps([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], verbose=True, pause=1.1)
    epoch = progress.epoch(0.25, 900, 1000)
    assert (epoch.epoch, epoch.batches, epoch.last_batch_loss, epoch.train_correct) == (3, 8, 1, 8)
    shown = capsys.readouterr().err
    (read,) = parse_log(f"{shown}\n{log.test_line(epoch)}")
    assert (read.last_batch_loss, read.correct) == (1, 900)
    assert read.seconds == pytest.approx(epoch.seconds, abs=1)
    full = [part for part in re.split("[\r\n]", shown) if "8/8" in part]
    assert full
    assert all("loss=1.0 batch_id=7" in part for part in full)


def test_a_stopped_epoch_leaves_no_open_bar():
    with pytest.raises(KeyboardInterrupt), Progress(1, RECIPE, 8, verbose=True) as progress:
        raise KeyboardInterrupt
    assert progress._bar not in list(tqdm._instances)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_divergence_names_epoch_batch_and_loss(bad):
    with pytest.raises(RunError, match=f"epoch 3, batch_id 1, .* loss is {bad}; .* below 0.01"):
        steps([1.0, bad, 2.0])
    with pytest.raises(RunError, match=f"epoch 3, batch_id 1, .* test loss after it is {bad}"):
        steps([1.0, 2.0]).epoch(bad, 900, 1000)


BAR = "loss=0.5 batch_id=124: 100%|██████████| 125/125 "
TEST = "Test set: Average loss: 0.5000, Accuracy: 820/1000 (82%)"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (f"{BAR}[1:04:10<00:00, 30.80s/it]\n{TEST}", 3850),
        (f"{BAR}[00:10<00:00, 12.00it/s]\r{BAR}[00:10<00:00, 12.00it/s]\n{TEST}", 125 / 12),
        (f"{BAR}[00:10<00:00, 75.00it/s]\n{TEST}", 10),  # another rate than the clock's
        (f"{BAR}[00:10<00:00, ?it/s]\n{TEST}", 10),
        (f"{BAR}[00:10<00:00, 0.00it/s]\n{TEST}", 10),
        (
            f"loss=2.3 batch_id=0:   0%|          | 1/125 [00:02<04:08,  2.00s/it]\r{BAR}"
            f"[00:01<00:00, 99.00it/s]some.py:27: UserWarning\r\n\n{TEST}\r\n",
            125 / 99,
        ),
    ],
)
def test_bars_redrawn_slow_or_among_other_text_are_one_epoch(text, seconds):
    (epoch,) = parse_log(text)
    assert epoch.seconds == pytest.approx(seconds)
    assert (epoch.correct, epoch.images, epoch.test_loss) == (820, 1000, 0.5)
    assert (epoch.batches, epoch.last_batch_loss) == (125, 0.5)


GOOD = """\
  0%|          | 0/1875 [00:00<?, ?it/s]some.py:27: UserWarning: Implicit dimension
loss=0.1 batch_id=1874: 100%|██████████| 1875/1875 [00:25<00:00, 74.70it/s]
  0%|          | 0/1875 [00:00<?, ?it/s]
Test set: Average loss: 0.0468, Accuracy: 9861/10000 (98.6100%)

loss=0.2 batch_id=1874: 100%|██████████| 1875/1875 [00:24<00:00, 76.29it/s]

Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.7000%)
"""
LINES = GOOD.splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the log ends without"),
        ("no log at all\nnone", "line 2: the log ends without"),
        ("\n".join(LINES[:6]), "line 6: the log is cut short at batch 1875 of 1875 of epoch 2"),
        (
            f"{GOOD}\nloss=0.3 batch_id=99:   5%|▌  | 100/1875 [00:01<00:24, 74.0it/s]",
            "line 10: the log is cut short at batch 100 of 1875 of epoch 3",
        ),
        (f"{GOOD}{LINES[2]}", "line 9: the log is cut short: epoch 3 begins"),
        (GOOD.replace("batch_id=1874", "batch_id=7"), "line 2: the last of 1875 batches cannot"),
        (GOOD[:-20], "line 8: not a whole test line"),
        (GOOD.replace("[00:24<", "[x<"), "line 6: not a finished progress bar"),
        (GOOD.replace("\n".join(LINES[3:5]), ""), "line 5: a new progress bar, but no"),
        (GOOD.replace(LINES[5], ""), "line 8: a 'Test set' line without the progress bar"),
        (GOOD.replace("9870/10000", "9871/10000"), "line 8: 9871/10000 is 98.7100%, not 98.7000%"),
        (GOOD.replace("9870/10000", "10870/10000"), "line 8: 10870 correct of 10000"),
        (GOOD.replace("9870/10000", "0/0"), "line 8: 0 correct of 0"),
        (GOOD.replace("9870/10000", "4935/5000"), "line 8: tested on 5000 images"),
        (GOOD.replace("0.0384", "nan"), "line 8: test_loss must be a finite number"),
        (GOOD.replace("0.0384", "0.03.84"), "line 8: could not convert"),
        (GOOD.replace("loss=0.2", "loss=inf"), "line 8: last_batch_loss must be a finite number"),
        (GOOD.replace("| 1875/1875 [00:24", "| 1800/1875 [00:24"), "line 8: .* 1800 of 1875"),
    ],
)
def test_malformed_logs_name_the_line(text, message):
    with pytest.raises(DataError, match=message):
        parse_log(text)
