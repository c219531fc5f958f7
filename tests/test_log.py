"""Training prints bars and lines in the assignment's format, whatever the terminal."""

import contextlib
import io
import re
import time

import pytest
import torch
from tqdm import tqdm

from mnist_lib import (
    format_log,
    get_recipe,
    log,
    logged_run,
    make_net,
    parse_log,
    recorded_studies,
    train,
)
from mnist_lib.log import Progress

RECIPE = get_recipe("assignment", epochs=2, batch_size=64)


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


def test_epochs_of_other_lengths_are_one_run():
    history = recorded_studies()["steady"][0]
    assert len({epoch.batches for epoch in history}) > 1, "only the hardest images"
    shown = parse_log(format_log(history))
    assert [epoch.batches for epoch in shown] == [epoch.batches for epoch in history]


def steps(losses, verbose=False, pause=0.0):
    """Take an epoch's steps with these losses. One of two images is right. The last step pauses."""
    output, targets = torch.eye(10)[:2].log(), torch.tensor([0, 5])
    with Progress(3, RECIPE, len(losses), verbose) as progress:
        for number, loss in enumerate(losses, 1):
            time.sleep(pause * (number == len(losses)))
            progress.step(torch.tensor(loss), output, targets)
    return progress


def test_a_slow_last_batch(capsys):
    """The bar is never shown full with the loss of an earlier batch."""
    progress = steps([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], verbose=True, pause=1.1)
    epoch = progress.report(0.25, 900, 1000)
    assert (epoch.epoch, epoch.batches, epoch.last_batch_loss, epoch.train_correct) == (3, 8, 1, 8)
    shown = capsys.readouterr().err
    (read,) = parse_log(f"{shown}\n{log.test_line(epoch)}")
    assert (read.last_batch_loss, read.correct) == (1, 900)
    assert read.seconds == pytest.approx(epoch.seconds, abs=1)
    full = [part for part in re.split("[\r\n]", shown) if "8/8" in part]
    assert full
    assert all("epoch 3 of 2 loss=1.0 batch_id=7" in part for part in full)


def test_a_stopped_epoch_leaves_no_open_bar():
    progress = Progress(1, RECIPE, 8, verbose=True)
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    with tqdm(total=1) as later:
        assert later.pos == 0, "on the first line"


@pytest.mark.parametrize(("columns", "rows"), [(-1, -1), (0, 24), (10, 24), (60, 24), (80, 0)])
def test_a_narrow_terminal_shows_the_last_state_whole(monkeypatch, capsys, columns, rows):
    """tqdm counts one column and one row less than the terminal has."""
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (columns, rows))
    epoch = steps([2.0, 1.0], verbose=True).report(0.25, 900, 1000)
    shown = capsys.readouterr().err
    assert "epoch 3 of 2:   0%"[: columns or None] in shown or rows < 0
    assert parse_log(f"{shown}\n{log.test_line(epoch)}").final.batches == 2


def test_without_a_terminal_nothing_breaks():
    with contextlib.redirect_stderr(None):
        assert steps([2.0, 1.0], verbose=True).losses == [2.0, 1.0]
