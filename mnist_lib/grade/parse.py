"""Reads training logs: every run in a text with what it tells, or the only one as a History."""

import os
import re
import statistics
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from ..base.errors import DataError, check, is_finite
from ..base.files import as_path, read_text
from ..history import Epoch, History

A_BAR = "loss=0.0238 batch_id=1874: 100%|████| 1875/1875 [00:24<00:00, 77.1it/s]"
A_TEST = "Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.70%)"
# Every repetition is bounded or stops at a character that it cannot match, so a search takes linear
# time on any text. A bar is whole, or truncated by a narrow terminal to the end of the line.
_TOKEN = re.compile(
    r"(?P<bar>loss=(?P<loss>\S{1,40}) batch_id=(?P<batch_id>\d{1,9})"
    r"(?:,? Accuracy ?= ?\S{1,20})?: *+(?P<percent>\d{1,3})%"
    r"(?:\|[^|]*+(?:\| *+(?P<done>\d{1,9})/(?P<total>\d{1,9}) \[(?:(?P<elapsed>[\d:]{4,15})<"
    r"(?:[\d:?]+, *(?P<rate>\d{1,9}(?:\.\d{1,9})?|\?)(?P<unit>it/s|s/it)[^\]]{0,40}\])?)?)?)?"
    r"(?(unit)|[\d/:?<., its|\[]{0,80}$))"
    r"|\b0%\|[^|]*\| *0/(?P<begun>\d{1,9}) \[00:00<\?"
    r"|(?P<summary>\b(?:best|max|maximum|highest|final|target)\W{1,3}(?:\w{1,12}\W{1,2})?)?"
    r"(?<![a-z])(?P<set>train|test|val)(?:ing|id|idation)?(?![a-z])"
    r"|^ *\|\W{0,9}(?P<row>\d{1,4})\b"  # of a Markdown table
    r"|(?<![a-z_])(?<!at )(?<!in )(?<!best )epoch[^\w\n]{1,4}(?P<number>\d{1,4})(?!\d|\.\d|%)"
    r"|(?P<stop>KeyboardInterrupt)|(?P<lost>streaming output truncated)",
    re.I,
)
_ACCURACY = re.compile(
    r"(?P<correct>\d{1,9})/(?P<images>\d{1,9})(?! ?\[|\d)"
    r"(?: *\((?P<stated>\d{1,3}(?:\.\d{1,9})?) ?%)?"
    r"|acc[a-z]{0,6}\W{1,6}(?P<share>\d{1,3}(?:\.\d{1,9}(?![\d/.]) ?%?| ?%))"
    r"|^\W{1,4}(?:\d\.\d{1,9} \()?(?P<percent>\d{1,3}\.\d{1,9}) ?%(?!\|)",
    re.I,
)
_LOSS = re.compile(r"(?<![a-z])loss *[:=] *([^\s,|;)]{1,40})", re.I)

_Bar = namedtuple("_Bar", "line number loss batch_id done total seconds")


# An epoch as a log tells it; None is what it does not tell. `line` is its test line, as in "line 8"
# or "cell 14, line 8", and `number` the log's own; `accuracy` is in per cent; `again` says that the
# bar follows one that stopped halfway.
LoggedEpoch = namedtuple(
    "LoggedEpoch", "line cell number bar again accuracy correct images test_loss"
)


def _told(epoch: LoggedEpoch) -> bool:
    """Whether a log shows training before the test line."""
    return epoch.bar is not None or epoch.number is not None


def _result(epoch: LoggedEpoch, step: int | None = 0) -> tuple:
    """What a quote has in common, the loss in thousandths: it may have fewer decimals, or none."""
    known = step is not None and is_finite(epoch.test_loss) and abs(epoch.test_loss) < 1e9
    loss = round(1000 * epoch.test_loss) + step if known else None
    return epoch.accuracy, epoch.images, loss


@dataclass(frozen=True)
class LoggedRun:
    """A run's epochs, and why it is another run than the one before it."""

    epochs: tuple[LoggedEpoch, ...]
    reason: str
    whole: bool  # it is not cut short
    unread: list[str]  # sentences on its cell

    @property
    def history(self) -> History:
        """The run as a History. Raises DataError, naming the line, if the log lacks something."""
        epochs = []
        if self.unread or not self.whole:
            cut = f"{self.epochs[-1].line}: the run is cut short after this epoch"
            raise DataError([*self.unread, cut][0])
        for place, told in enumerate(self.epochs, 1):
            number, before, bar = told.number, self.epochs[place - 2].number, told.bar
            try:
                if place > 1 and number and before and number != before + 1:
                    raise DataError(f"epoch {number} follows epoch {before}")
                if told.correct is None or told.test_loss is None:
                    raise DataError(f"not a whole test line: no count or loss; expected {A_TEST!r}")
                if bar is None:
                    problem = "a 'Test set' line without the progress bar of its epoch"
                    raise DataError(f"{problem}, such as {A_BAR!r}")
                losses, counts = (told.test_loss, float(bar.loss)), (told.images, told.correct)
                epochs.append(Epoch(place, *counts, *losses, bar.total, bar.seconds))
            except ValueError as error:
                raise DataError(f"{told.line}: {error}") from None
        return History(tuple(epochs))


def parse_log(text: str | os.PathLike) -> History:
    """Read the only run in a training log, given as text or as a Path to a file.

    An epoch is a finished progress bar (`loss=... batch_id=...: 100%|...`) and the `Test set: ...`
    line after it. Also reads the course's other formats, and bars that a narrow terminal truncated
    after the percentage; if the clock is missing, the epoch has 0 seconds. Skips unfinished bars,
    other loops, downloads, other lines, and epochs or test lines repeated in a summary.

    Raises DataError, naming the line (from 1), for a log that is malformed, cut short, lacks
    something, or holds more than one run: `read_notebook` reads those, and notebooks.
    """
    if isinstance(text, os.PathLike):
        text = read_text(as_path("text", text))
    check("text", text, isinstance(text, str), "a log's text, or a Path to it")
    runs, unread = read_runs({0: text})
    if text.lstrip().startswith("{") and '"cells"' in text:
        unread = ["line 1: this is a notebook, not a log: see read_notebook"]
    elif len(runs) > 1:
        problem = f"{runs[1].epochs[0].line}: {runs[1].reason}: the log holds more than one run"
        unread.append(f"{problem}; see read_notebook")
    elif not runs:
        problem = f"line {text.count(chr(10)) + 1}: the log ends without a single 'Test set' line"
        unread.append(f"{problem}, such as {A_TEST!r}; a file is named by a Path")
    if unread:
        raise DataError(unread[0])
    return runs[0].history


def read_runs(cells: dict[int, str]) -> tuple[list[LoggedRun], list[str]]:
    """The runs in the outputs of cells, by number, or in a text, cell 0; and what is unreadable."""
    epochs, cut, unread = [], set(), {cell: [] for cell in cells}
    for cell, text in cells.items():
        epochs += _epochs(cell, text, unread[cell], cut)
    runs: list[tuple[list[LoggedEpoch], str]] = []
    epochs = _without_repeats(epochs)
    for place, epoch in enumerate(epochs):
        later = epochs[place + 1 : place + 2]
        if reason := _begins_again(runs[-1][0], epoch, later) if runs else "the first":
            runs.append(([], reason))
        runs[-1][0].append(epoch)
    # A single test line without signs of training, beside runs with some, is a later test.
    lone = [run[0] for run, _ in runs if len(run) == 1 and not _told(run[0])]
    if len(lone) < len(runs):
        for epoch in lone:
            unread[epoch.cell].append(f"{epoch.line}: a test line outside of a run")
        runs = [each for each in runs if len(each[0]) > 1 or _told(each[0][0])]
    runs = [
        LoggedRun(tuple(run), reason, run[-1].line not in cut, unread[run[-1].cell])
        for run, reason in runs
    ]
    return runs, list(chain(*unread.values()))


def _epochs(cell: int, text: str, unread: list, cut: set) -> list[LoggedEpoch]:
    """The epochs in one text; adds what is unreadable, and where a run is cut short."""
    found, begun = [], []
    bar, number, again = None, None, False
    for line, kind, value in _events(f"cell {cell}, " if cell else "", text):
        problem = ""
        if kind == "bar":
            new = _Bar(line, number, *_measures(value))
            ended = bar and bar.done == bar.total
            resumed = bar and bar.number and number and number <= bar.number
            if new.done == new.total != new.batch_id + 1:
                problem = f"the last of {new.total} batches cannot be {new.batch_id}"
            elif not ended or new.batch_id > bar.batch_id or new.loss == bar.loss or resumed:
                again = again or bool(bar and not ended and new.batch_id < bar.batch_id)
                bar = new
            elif new.done > 1:  # the next epoch's bar may begin before the test line
                problem = "a new progress bar, but no 'Test set' line follows the one on"
                problem, bar = f"{problem} {bar.line}", new
        elif kind == "test":
            score, problem = _score(*value)
            if bar and bar.done != bar.total:
                stopped = f"the epoch's progress bar stopped at batch {bar.done} of {bar.total}"
                problem, bar = f"a 'Test set' line, but {stopped}", None
            if score:
                cut |= {epoch.line for epoch in found[-1:] if again}
                found.append(LoggedEpoch(line, cell, number, bar, again, *score))
                bar, number, again = None, None, False
        elif kind == "number":
            number = value
        elif kind == "begun":
            begun.append((line, value))
            again = again or bool(bar and bar.done < bar.total == value)
        elif kind == "stop":
            again = True
        else:
            problem = value
        unread += [f"{line}: {problem}"] * bool(problem)
    if any(epoch.images for epoch in found):  # per cent alone is then a summary
        found = [epoch for epoch in found if epoch.images]
    found = _without_repeats(found)
    # Other totals are loops over the test images, or downloads.
    total = next((epoch.bar.total for epoch in reversed(found) if epoch.bar), None)
    lines = [line for line, count in begun if count == total]
    count, at = len(found) + 1, f": epoch {len(found) + 1} begins, but"
    if bar:
        lines, at = [bar.line] * count, f" at batch {bar.done} of {bar.total} of epoch {count};"
    if len(lines) >= count:
        unread.append(f"{lines[-1]}: the log is cut short{at} no 'Test set' line follows")
        cut |= {epoch.line for epoch in found[-1:]}
    return found


def _events(place: str, text: str) -> Iterator[tuple[str, str, object]]:
    """What a text shows, in order: the line, the kind, and a match, number or sentence."""
    text = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", text)  # colours
    for count, line in enumerate(text.split("\n"), 1):
        # tqdm redraws its bar after a carriage return, so a line of the file holds many bars.
        for part in map(str.rstrip, line.split("\r")):
            tokens, kinds, loss, problem = list(_TOKEN.finditer(part)), set(), None, ""
            for at, token in enumerate(tokens):
                kind, value = token.lastgroup, token
                if kind in ("set", "row"):
                    ends = (t.start() for t in tokens[at + 1 : at + 70] if t["set"] or t["bar"])
                    told = part[token.end() : next(ends, None)][:200]
                    loss = found[1] if (found := _LOSS.search(told)) else loss
                    scores = [m for m in _ACCURACY.finditer(told) if m["images"] or token["set"]]
                    score = min(scores, key=lambda m: int(m["images"] or 10**9), default=None)
                    if token["summary"] or (score and "best" in told[: score.start()].lower()):
                        kinds.add("test")  # but not an epoch's
                    elif score and (token["set"] or "").lower() != "train":
                        kinds.add("test")
                        if kind == "row":
                            yield f"{place}line {count}", "number", int(token["row"])
                        yield f"{place}line {count}", "test", (score, loss)
                        loss = None
                    continue
                if kind == "lost":
                    value = "Colab kept only the output's end"
                elif kind not in ("bar", "stop"):
                    value = int(token[kind])
                kinds.add(kind)
                yield f"{place}line {count}", kind, value
            if "oss=" in part and "atch_id=" in part and "bar" not in kinds:
                problem = f"finished progress bar: {part.strip()[:120]!r}; expected {A_BAR!r}"
            elif "Test set:" in part and "test" not in kinds:
                problem = f"whole test line: {part.strip()[:120]!r}; expected {A_TEST!r}"
            if problem:
                yield f"{place}line {count}", "unread", f"not a {problem}"


def _measures(bar: re.Match) -> tuple[str, int, int, int, float]:
    """A bar's loss, batch_id, batches done, all batches and seconds.

    The time is from the rate if that agrees with the clock, which shows whole seconds.
    """
    batch_id, rate = int(bar["batch_id"]), float((bar["rate"] or "?").replace("?", "0"))
    total = int(bar["total"] or batch_id + 1)
    done = int(bar["done"]) if bar["total"] else total - (bar["percent"] != "100")
    units = reversed((bar["elapsed"] or "0").split(":"))
    seconds = clock = float(sum(int(part or 0) * 60**power for power, part in enumerate(units)))
    if rate:
        seconds = total * rate if bar["unit"] == "s/it" else total / rate
    if abs(seconds - (clock + 0.5)) > 0.51:  # leaves room for the rate's rounding
        seconds = clock
    return bar["loss"], batch_id, done, total, seconds


def _score(found: re.Match, loss: str | None) -> tuple[tuple, str]:
    """Accuracy, correct, images and loss of a test line, or nothing; and what is wrong with it."""
    correct = images = test_loss = None
    problem = ""
    if found["images"]:
        correct, images, stated = int(found["correct"]), int(found["images"]), found["stated"]
        if not 0 < images >= correct:
            return (), f"{correct} correct of {images} images cannot be"
        accuracy = 100 * correct / images
        if stated and abs(accuracy - float(stated)) > 0.501 * 10 ** -len(stated.partition(".")[2]):
            problem = f"{correct}/{images} is {accuracy:.4f}%, not {stated}%"
    else:
        accuracy = float((found["percent"] or found["share"]).strip(" %"))
        if accuracy <= 1 and found["share"] and "%" not in found["share"]:
            accuracy = round(100 * accuracy, 9)
        if accuracy > 100:
            return (), f"an accuracy of {accuracy} cannot be"
    try:
        test_loss = float(loss) if loss else None
    except ValueError as error:
        problem = str(error)
    return (accuracy, correct, images, test_loss), problem


def _without_repeats(epochs: list[LoggedEpoch]) -> list[LoggedEpoch]:
    """The last occurrence of each epoch, and no test line that only quotes another.

    Equal neighbours without numbers are two epochs. A line without a bar or number is a quote if
    an epoch with one, or in an earlier cell, has its result.
    """
    # A redrawn bar may round its seconds differently.
    bars = [(e.number, _result(e), *(e.bar or ())[2:-1]) if _told(e) else None for e in epochs]
    last = {bar: place for place, bar in enumerate(bars)}
    kept, known = [], {}  # the first cell with each result; -1 for one with a bar or number
    for place, (epoch, bar) in enumerate(zip(epochs, bars, strict=True)):
        if not bar or last[bar] == place or (last[bar] == place + 1 and not epoch.number):
            kept.append(epoch)
            for near in (_result(epoch, step) for step in (None, -1, 0, 1)):
                known[near] = -1 if bar else known.get(near, epoch.cell)
    return [e for e in kept if _told(e) or known[_result(e)] == e.cell]


def _begins_again(run: list[LoggedEpoch], epoch: LoggedEpoch, later: list) -> str:
    """Why an epoch begins another run; "" if it goes on. `later` holds the next epoch, if any."""
    first, before = run[0], run[-1]
    if epoch.images != before.images:
        return f"tested on {epoch.images} images, epoch 1 on {before.images}"
    if epoch.number is not None and before.number is not None:
        back = epoch.number <= before.number
        return f"epoch {epoch.number} follows epoch {before.number}" if back else ""
    if epoch.cell != before.cell:
        return "another cell"
    if epoch.again:
        return "the progress bar begins again after one that stopped halfway"
    if epoch.bar and before.bar and epoch.bar.total != before.bar.total:
        return f"an epoch of {epoch.bar.total} batches follows one of {before.bar.total}"
    if _result(before) != _result(epoch) == _result(first):
        return "the first test line again"
    # As bad as after a first epoch, and not for one epoch alone. No recorded run of 467 has such a
    # dip; of joined runs of the assignment's recipe, 98% show it.
    usual = statistics.median(100 - e.accuracy for e in run[-3:])
    back = 100 - epoch.accuracy > max(1.5 * usual, 60 - 0.6 * first.accuracy)
    if len(run) >= 3 and back and all(100 - e.accuracy > 1.2 * usual for e in later):
        return f"{epoch.accuracy:.2f}% follows {before.accuracy:.2f}%, as after a first epoch"
    return ""
