"""Logs that are read: the author's, counted by hand, those that people have, and broken ones."""

import pytest

from mnist_lib import DataError, ParameterError, RunError, format_log, parse_log
from mnist_lib.grade.records import logged_run, logged_runs

# Read off the assignment's log by eye.
CORRECT = [9861, 9870, 9886, 9916, 9915, 9899, 9912, 9932, 9939, 9930]
CORRECT += [9937, 9932, 9920, 9930, 9932, 9936, 9944, 9931, 9938]


def test_logged_runs():
    logged, second = logged_runs()
    assert logged == logged_run()
    assert [epoch.correct for epoch in logged] == CORRECT
    assert logged.images == 10_000
    first, last = logged.epochs[0], logged.epochs[-1]
    assert (first.test_loss, first.last_batch_loss) == (0.0468, 0.13960422575473785)
    assert (first.batches, first.seconds) == (1875, pytest.approx(25.1004, abs=1e-4))
    assert (last.test_loss, last.last_batch_loss) == (0.0200, 7.31154577806592e-05)
    assert logged.first_to_reach(9944).epoch == logged.best.epoch == 17, "not 18, as was claimed"
    assert (len(second), second.final.correct) == (19, 9932)
    assert (second.best.epoch, second.best.correct) == (14, 9942)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])  # the latter is PowerShell's
def test_log_round_trip(tmp_path, encoding):
    text, path = format_log(logged_run()), tmp_path / "log.txt"
    path.write_text(text, encoding=encoding)
    assert parse_log(path) == parse_log(text) == logged_run()


FIRST = "loss=2.3 batch_id=0:   0%|          | 1/125 [00:02<04:08,  2.00s/it]"
BAR = "loss=0.5 batch_id=124: 100%|██████████| 125/125 "
TEST = "Test set: Average loss: 0.5000, Accuracy: 820/1000 (82%)"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (f"{BAR}[1:04:10<00:00, 30.80s/it]\n{TEST}", 3850),
        (f"{BAR}[00:10<00:00, 12.00it/s]\r{BAR}[00:10<00:00, 12.00it/s]\n{TEST}", 125 / 12),
        (f"{BAR}[00:10<00:00, 12.48it/s]\n{TEST}", 125 / 12.48),  # just after 10 s
        (f"{BAR}[00:10<00:00, 11.38it/s]\n{TEST}", 125 / 11.38),  # just before 11 s
        (f"{BAR}[00:10<00:00, 75.00it/s]\n{TEST}", 10),  # another rate than the clock's
        (f"{BAR}[00:10<00:00, ?it/s]\n{TEST}", 10),
        (f"{BAR}[00:10<00:00, 0.00it/s]\n{TEST}", 10),
        (f"{FIRST}\r{BAR}[00:01<00:00, 99.00it/s]a.py:27: UserWarning\r\n\n{TEST}\r\n", 125 / 99),
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
THIRD = "loss=0.3 batch_id=99:   5%|▌  | 100/1875 [00:01<00:24, 74.0it/s]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the log ends without"),
        ("no log at all\nnone", "line 2: the log ends without"),
        ("\n".join(LINES[:6]), "line 6: the log is cut short at batch 1875 of 1875: epoch 2"),
        (f"{GOOD}\n{THIRD}", "line 10: the log is cut short at batch 100 of 1875: epoch 3"),
        (f"{GOOD}{LINES[2]}", "line 9: the log is cut short: epoch 3 begins"),
        (GOOD.replace("batch_id=1874", "batch_id=7"), "line 4: its bar stopped .* batch_id=7"),
        (GOOD[:-20], "line 8: not a whole test line"),
        (GOOD.replace("[00:24<", "[x<"), "line 6: not a finished progress bar"),
        (GOOD.replace("\n".join(LINES[3:5]), ""), "line 5: a new progress bar, but no"),
        (GOOD.replace(LINES[5], ""), "line 8: a 'Test set' line without the progress bar"),
        (GOOD.replace("9870/10000", "9871/10000"), "line 8: 9871/10000 is 98.7100%, not 98.7000%"),
        (GOOD.replace("9870/10000", "10870/10000"), "line 8: 10870 correct of 10000"),
        (GOOD.replace("9870/10000", "0/0"), "line 8: 0 correct of 0"),
        (GOOD.replace("9870/10000", "4935/5000"), "line 8: another run"),
        (GOOD.replace("0.0384", "nan"), "line 8: .* no count or loss"),
        (GOOD.replace("0.0384", "0.03.84"), "line 8: .* no count or loss"),
        (GOOD.replace("loss=0.2", "loss=inf"), "line 6: not a finished progress bar"),
        (GOOD.replace("| 1875/1875 [00:24", "| 1800/1875 [00:24"), "line 8: .* 1800 of 1875"),
    ],
)
def test_malformed_logs_name_the_line(text, message):
    with pytest.raises(DataError, match=message):
        parse_log(text)


OTHER_LOOPS = """\
  0%|          | 0/9912422 [00:00<?, ?it/s]
100%|██████████| 9912422/9912422 [00:01<00:00, 5012345.67it/s]
Extracting data/MNIST/raw/train-images-idx3-ubyte.gz to data/MNIST/raw
  0%|          | 0/469 [00:00<?, ?it/s]\rloss=0.5 batch_id=0:   0%| | 0/469 [00:00<?, ?it/s]
loss=0.25 batch_id=468: 100%|██████████| 469/469 [00:20<00:00, 23.10it/s]
  0%|          | 0/79 [00:00<?, ?it/s]\r100%|██████████| 79/79 [00:02<00:00, 35.20it/s]
Test set: Average loss: 0.0468, Accuracy: 9861/10000 (98.61%)
  0%|          | 0/469 [00:00<?, ?it/s]
loss=0.125 batch_id=468: 100%|██████████| 469/469 [00:20<00:00, 23.10it/s]
  0%|          | 0/79 [00:00<?, ?it/s]\r100%|██████████| 79/79 [00:02<00:00, 35.20it/s]
Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.70%)
"""
COURSE = """\
EPOCH: 1
  0%|          | 0/469 [00:00<?, ?it/s]
Loss=2.30 Batch_id=0 Accuracy=9.38:   0%|          | 0/469 [00:00<?, ?it/s]
Loss=0.25 Batch_id=468 Accuracy=91.27: 100%|██████████| 469/469 [00:20<00:00, 23.10it/s]

Test set: Average loss: 0.0468, Accuracy: 9861/10000 (98.61%)

EPOCH: 2
  0%|          | 0/469 [00:00<?, ?it/s]
Loss=0.125 Batch_id=468 Accuracy=98.61: 100%|██████████| 469/469 [00:20<00:00, 23.10it/s]

Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.70%)
"""
QUOTE = "Best: Test set: Average loss: 0.038, Accuracy: 9870/10000 (99%)\n"
QUOTED = """\
loss=0.125 batch_id=468: 100%|██████████| 469/469 [00:20<00:00, 23.10it/s]
Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.70%)
"""


@pytest.mark.parametrize(
    "text", [OTHER_LOOPS, COURSE, QUOTE + QUOTED + OTHER_LOOPS, COURSE + QUOTE]
)
def test_logs_that_people_have(tmp_path, text):
    """Old torchvision's downloads, a bar over the test images, the accuracy in the bar, a quote."""
    path = tmp_path / "log.txt"
    path.write_text(text, encoding="utf-8")
    for given in (text, path):
        first, second = parse_log(given)
        assert (first.correct, first.last_batch_loss, first.batches) == (9861, 0.25, 469)
        assert (second.correct, second.test_loss, second.seconds) == (9870, 0.0384, 469 / 23.1)
    with pytest.raises(DataError, match="the log is cut short: epoch 3 begins"):
        parse_log(f"{text}\n  0%|          | 0/469 [00:00<?, ?it/s]")


@pytest.mark.parametrize("columns", [48, 49, 50, 55, 59, 60, 61, 62, 70, 80, 90])
def test_bars_that_a_narrow_terminal_trimmed(columns):
    shown = format_log(logged_run())
    lines = [line if "Test set" in line else line[:columns] for line in shown.split("\n")]
    read = parse_log("\n".join(lines))
    for epoch, whole in zip(read, logged_run(), strict=True):
        assert epoch.last_batch_loss == whole.last_batch_loss
        assert (epoch.correct, epoch.batches) == (whole.correct, 1875)
        assert epoch.seconds in (0, int(epoch.seconds)) or epoch.seconds == whole.seconds


def test_what_cannot_be_read_is_shown_with_what_is_expected(tmp_path):
    trimmed = "loss=0.0238402 batch_id=18"
    with pytest.raises(
        DataError, match=rf"line 1: not a finished .* such as 'loss=0.*: '{trimmed}'"
    ):
        parse_log(trimmed)
    with pytest.raises(DataError, match=r"not a whole test line: .*; expected 'Test set: Average"):
        parse_log(f"{BAR}[00:10<00:00, ?it/s]\nTest set: Accuracy: 820/1000")
    with pytest.raises(DataError, match=r"line 1: the log ends .*; a file is named by a Path"):
        parse_log("log.txt")
    with pytest.raises(RunError, match=r"log\.txt cannot be read: No such file"):
        parse_log(tmp_path / "log.txt")
    for text in (None, b"Test set", ["Test set"], 3):
        with pytest.raises(ParameterError, match="text must be a log's text, or a Path to it"):
            parse_log(text)


def test_a_run_that_was_shown_again_is_one():
    again = format_log(logged_run())
    head = "".join(again.splitlines(keepends=True)[:6])
    assert parse_log(head + again) == logged_run()


def lines(number, of, correct, loss, seconds, test=True):
    """An epoch as the library's own terminal output shows it."""
    bar = f"epoch {number} of {of} loss={loss} batch_id=124: 100%|███| 125/125 "
    line = f"{bar}[00:0{seconds // 1:.0f}<00:00, {125 / seconds:.2f}it/s]\n"
    score = f"{correct}/1000 ({correct / 10:.2f}%)"
    return line + test * f"Test set: Average loss: {loss}, Accuracy: {score}\n"


def test_a_resumed_runs_log_has_each_epoch_once():
    """The resumed run shows it again with other seconds; a stop in the test leaves no test line."""
    again = lines(1, 3, 900, 0.4, 1.1) + lines(2, 3, 950, 0.3, 1.2) + lines(3, 3, 960, 0.2, 1.1)
    for before in (
        lines(1, 3, 900, 0.4, 1.2) + lines(2, 3, 950, 0.3, 1.1),
        lines(1, 3, 900, 0.4, 1.2) + lines(2, 3, 950, 0.3, 1.1, test=False),
        lines(1, 3, 900, 0.4, 1.2) + lines(2, 3, 940, 0.31, 1.1, test=False),
    ):
        assert [epoch.correct for epoch in parse_log(before + again)] == [900, 950, 960]


def test_two_runs_in_one_log_are_refused():
    one = lines(1, 2, 900, 0.4, 1.1) + lines(2, 2, 950, 0.3, 1.2)
    other = lines(1, 2, 910, 0.41, 1.1) + lines(2, 2, 940, 0.31, 1.2)
    with pytest.raises(DataError, match=r"line 6: another run: .*; see read_notebook"):
        parse_log(one + other)
