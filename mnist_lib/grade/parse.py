"""Reads training logs printed in the assignment's format."""

import itertools
import os
import re
from dataclasses import dataclass, replace

from ..base.errors import DataError, check
from ..base.files import as_path, read_text
from ..history import Epoch, History

A_BAR = "loss=0.0238 batch_id=1874: 100%|████| 1875/1875 [00:24<00:00, 77.1it/s]"
A_TEST = "Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.70%)"

# Every repetition is bounded or stops at a character that it cannot match, so a search takes linear
# time on any text.
_HEAD = (
    r"(?:epoch (?P<number>\d{1,9}) of \d{1,9} )?"
    r"[Ll]oss=(?P<loss>\S{1,40}) [Bb]atch_id=(?P<batch_id>\d{1,9})(?: Accuracy=\S{1,20})?: *+"
    r"(?P<percent>\d{1,3})%"
)
_CLOCK = r"(?P<elapsed>\d{1,9}(?::\d\d){1,2})<"
_BAR = re.compile(
    rf"{_HEAD}\|[^|]*\| *(?P<done>\d{{1,9}})/(?P<total>\d{{1,9}}) "
    rf"\[{_CLOCK}[\d:?]+, *(?P<rate>\d{{1,9}}(?:\.\d{{1,9}})?|\?)(?P<unit>it/s|s/it)\]"
)
# A bar truncated by a narrow terminal, to the end of the line.
_TRUNCATED = re.compile(
    rf"{_HEAD}(?:\|[^|]*+(?:\| *+[\d/]{{0,19}}(?: \[[\d:?<., its/]{{0,60}})?)?)?$"
)
_COUNTED = re.compile(rf"\| *+\d{{1,9}}/(?P<total>\d{{1,9}}) \[(?:{_CLOCK})?")
_EMPTY_BAR = re.compile(r"\b0%\|[^|]*\| *0/(\d{1,9}) \[00:00<\?")
_TEST = re.compile(
    r"Test set: Average loss: (?P<loss>\S{1,40}), "
    r"Accuracy: (?P<correct>\d{1,9})/(?P<images>\d{1,9}) "
    r"\((?P<percent>\d{1,3}(?:\.\d{1,9})?)%\)"
)


@dataclass(frozen=True)
class _Bar:
    line: int
    number: int | None  # the epoch's, if the bar shows it
    loss: str
    batch_id: int
    done: int
    total: int
    seconds: float


def parse_log(text: str | os.PathLike) -> History:
    """Read a training log in the assignment's format, given as text or as a Path to a file.

    An epoch is a finished progress bar (`loss=... batch_id=...: 100%|...`) and the `Test set: ...`
    line after it. Also reads the course's other format, with the accuracy in the bar (`Loss=...
    Batch_id=... Accuracy=...`), and bars that a narrow terminal truncated after the percentage; if
    the clock is missing, the epoch has 0 seconds. Skips unfinished bars, other loops, downloads,
    other lines, and epochs or test lines repeated in a summary.

    Raises DataError, naming the line (from 1), for a log that is malformed or cut short.
    """
    if isinstance(text, os.PathLike):
        text = read_text(as_path("text", text))
    check("text", text, isinstance(text, str), "a log's text, or a Path to it")
    epochs: list[Epoch] = []
    origins: list[tuple[int | None, int]] = []  # per epoch: its bar's number, its test line
    quoted: list[tuple[int, re.Match]] = []  # test lines without a bar
    begun: list[tuple[int, int]] = []  # line and total of each empty bar
    bar = None  # the last one since the last test line
    # tqdm redraws its bar after a carriage return, so a line of the file holds many bars.
    for number, line in enumerate(text.split("\n"), 1):
        for part in line.split("\r"):
            if "oss=" in part and "atch_id=" in part:
                bar = _next_bar(bar, _read_bar(number, part))
            else:
                begun += [(number, int(total)) for total in _EMPTY_BAR.findall(part)]
            if "Test set:" in part:
                match = _TEST.search(part)
                if match is None:
                    raise _unreadable(number, part, "whole test line", A_TEST)
                if bar is None:
                    quoted.append((number, match))
                else:
                    epochs.append(_read_epoch(bar, number, match, epochs))
                    origins.append((bar.number, number))
                bar = None
    for at, match in quoted:
        if not any(_repeats(match, epoch) for epoch in epochs):
            problem = "a 'Test set' line without the progress bar of its epoch"
            raise DataError(f"line {at}: {problem}, such as {A_BAR!r}")
    if bar is not None:
        problem = f"cut short at batch {bar.done} of {bar.total} of epoch {len(epochs) + 1}"
        raise DataError(f"line {bar.line}: the log is {problem}; no 'Test set' line follows")
    if not epochs:
        problem = "the log ends without a single 'Test set' line"
        raise DataError(f"line {number}: {problem}, such as {A_TEST!r}; a file is named by a Path")
    epochs = _without_repeats(epochs, origins)
    # Other totals are loops over the test images, or downloads.
    begun = [at for at, total in begun if total == epochs[-1].batches]
    if len(begun) > len(epochs):
        problem = f"cut short: epoch {len(epochs) + 1} begins, but no 'Test set' line follows"
        raise DataError(f"line {begun[-1]}: the log is {problem}")
    return History(tuple(epochs))


def _read_bar(line: int, part: str) -> _Bar:
    if match := _BAR.search(part):
        batch_id, done, total = (int(match[name]) for name in ("batch_id", "done", "total"))
        if done == total != batch_id + 1:
            raise DataError(f"line {line}: the last of {total} batches cannot be {batch_id}")
        seconds = _seconds(match)
    elif match := _TRUNCATED.search(part.rstrip()):
        counted, batch_id = _COUNTED.search(part, match.end("percent")), int(match["batch_id"])
        total = int(counted["total"]) if counted else batch_id + 1
        done = total if match["percent"] == "100" else min(batch_id + 1, total - 1)
        seconds = float(_clock(counted["elapsed"])) if counted and counted["elapsed"] else 0.0
    else:
        raise _unreadable(line, part, "finished progress bar", A_BAR)
    number = int(match["number"]) if match["number"] else None
    return _Bar(line, number, match["loss"], batch_id, done, total, seconds)


def _unreadable(line: int, part: str, what: str, example: str) -> DataError:
    return DataError(f"line {line}: not a {what}: {part.strip()[:120]!r}; expected {example!r}")


def _next_bar(bar: _Bar | None, new: _Bar) -> _Bar:
    """`new`, if it may follow `bar`: a bar that stopped halfway may start again."""
    ended = bar and bar.done == bar.total and new.batch_id <= bar.batch_id
    resumed = ended and bar.number and new.number and new.number <= bar.number
    if ended and new.loss != bar.loss and not resumed:
        problem = f"a new progress bar, but no 'Test set' line follows the one on line {bar.line}"
        raise DataError(f"line {new.line}: {problem}")
    return new


def _read_epoch(bar: _Bar, line: int, match: re.Match, epochs: list[Epoch]) -> Epoch:
    if bar.done != bar.total:
        problem = f"the epoch's progress bar stopped at batch {bar.done} of {bar.total}"
        raise DataError(f"line {line}: a 'Test set' line, but {problem}")
    try:
        images, correct = int(match["images"]), int(match["correct"])
        losses = float(match["loss"]), float(bar.loss)
        epoch = Epoch(len(epochs) + 1, images, correct, *losses, bar.total, bar.seconds)
    except ValueError as error:
        raise DataError(f"line {line}: {error}") from None
    percent = match["percent"]
    if abs(epoch.accuracy - float(percent)) > 0.501 * 10 ** -len(percent.partition(".")[2]):
        score = f"{epoch.correct}/{epoch.images} is {epoch.accuracy:.4f}%"
        raise DataError(f"line {line}: {score}, not {percent}%")
    if epochs and (others := epochs[0].images) != epoch.images:
        raise DataError(f"line {line}: tested on {epoch.images} images, epoch 1 on {others}")
    return epoch


def _repeats(match: re.Match, epoch: Epoch) -> bool:
    """Whether a test line is the epoch's own, perhaps with fewer decimals."""
    same = (int(match["correct"]), int(match["images"])) == (epoch.correct, epoch.images)
    try:
        return same and abs(float(match["loss"]) - epoch.test_loss) < 6e-4
    except ValueError:
        return False


def _without_repeats(epochs: list[Epoch], origins: list[tuple[int | None, int]]) -> list[Epoch]:
    """The last occurrence of each epoch. Equal neighbours without numbers are two epochs."""
    # A redrawn bar may round its seconds differently.
    results = (replace(epoch, epoch=1, seconds=0.0) for epoch in epochs)
    alike = [(number, result) for (number, _), result in zip(origins, results, strict=True)]
    last = {epoch: place for place, epoch in enumerate(alike)}
    places = [
        place
        for place, epoch in enumerate(alike)
        if last[epoch] == place or (last[epoch] == place + 1 and not epoch[0])
    ]
    for (before, _), (number, line) in itertools.pairwise(origins[place] for place in places):
        if before and number and number != before + 1:
            problem = f"epoch {number} follows epoch {before}: the log holds more than one run"
            raise DataError(f"line {line}: {problem}; cut out a whole one")
    return [replace(epochs[place], epoch=number) for number, place in enumerate(places, 1)]


def _seconds(bar: re.Match) -> float:
    """A bar's time: from its rate if that agrees with its clock, which shows whole seconds."""
    clock = _clock(bar["elapsed"])
    rate = 0.0 if bar["rate"] == "?" else float(bar["rate"])
    if rate:
        total = int(bar["total"])
        seconds = total * rate if bar["unit"] == "s/it" else total / rate
        if abs(seconds - (clock + 0.5)) <= 0.51:  # leaves room for the rate's rounding
            return seconds
    return float(clock)


def _clock(elapsed: str) -> int:
    """Seconds of a clock such as `1:04:10` or `00:24`."""
    return sum(int(part) * 60**power for power, part in enumerate(reversed(elapsed.split(":"))))
