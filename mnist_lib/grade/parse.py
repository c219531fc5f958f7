"""Reads training logs: every run in a text with what it tells, or the only one as a History."""

import os
import re
import statistics
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ..base.errors import DataError, check
from ..base.files import as_path, read_text
from ..history import Epoch, History

A_BAR = "loss=0.0238 batch_id=1874: 100%|████| 1875/1875 [00:24<00:00, 77.1it/s]"
A_TEST = "Test set: Average loss: 0.0384, Accuracy: 9870/10000 (98.70%)"
UNREAD = {
    "no_bar": f"not a finished progress bar, such as {A_BAR!r}",
    "no_score": f"not a whole test line, such as {A_TEST!r}",
    "lost": "Colab kept only the output's end",
}
# Every repetition is bounded or stops at a character that it cannot match, so a search takes linear
# time on any text. A bar is whole, or truncated by a narrow terminal to the end of the line.
_NUMBER = r"-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d\d)?"  # finite
_TOKEN = re.compile(
    rf"(?P<bar>loss=(?P<loss>{_NUMBER}) "
    r"batch_id=(?P<batch_id>\d{1,9})"
    r"(?:,? Accuracy ?= ?\S{1,20})?: *+(?P<percent>\d{1,3})%"
    r"(?:\|[^|]*+(?:\| *+(?P<done>\d{1,9})/(?P<total>\d{1,9}) \[(?:(?P<elapsed>[\d:]{4,15})<"
    r"(?:[\d:?]+, *(?P<rate>\d{1,9}(?:\.\d{1,9})?|\?)(?P<unit>it/s|s/it)[^\]]{0,40}\])?)?)?)?"
    r"(?(unit)|[\d/:?<., its|\[]{0,80}$))"
    r"|(?P<no_bar>loss=)(?=\S{0,40} batch_id)"
    r"|(?P<no_score>Test set:)(?!.{0,120}(?:\d/\d|\d ?%|acc[a-z]*\W{1,6}\d+\.\d))"
    r"|\b0%\|[^|]*\| *0/(?P<begun>\d{1,9}) \[00:00<\?"
    r"|(?<![a-z_])(?<!at )(?<!in )(?<!best )epoch[^\w\n]{1,4}(?P<number>\d{1,4})(?!\d|\.\d|%)"
    r"|(?P<stop>KeyboardInterrupt)|(?P<lost>streaming output truncated)"
    # A row of a Markdown table, without the training set's count.
    r"|^ *\|\W{0,9}(?P<row>\d{1,4})\b(?=.*\d/\d)(?:[^/]{0,80}/(?:60|5[05])000\b)?"
    r"|(?P<summary>\b(?:best|max|maximum|highest|final|target)\W{1,3}(?:\w{1,12}\W{1,2})?)?"
    r"(?<![a-z])(?P<set>train|best|(?P<test>test|val))(?:ing|id|idation)?(?![a-z])"
    r"(?:\W{1,4}(?:\d\.\d{1,9} \()?(?P<near>\d{1,2}\.\d{1,20} ?%)(?!\|))?"
    rf"|(?<![a-z])loss *[:=] *(?P<told>{_NUMBER})(?![\w.])"
    r"|acc[a-z]{0,6}\W{1,6}(?P<share>(?:100|\d{1,2})(?:\.\d{1,20}(?![\d/.]) ?%?| ?%))"
    r"|(?P<score>(?<![\d.])(?P<correct>\d{1,9})(?:\.0)?/(?P<images>\d{1,9})(?:\.0)?(?! ?\[|\.?\d)"
    r"(?: *\((?P<stated>\d{1,3}(?:\.\d{1,9})?) ?%)?)",
    re.I,
)
_UNDER_WAY = re.compile(r"(?<!\d)\d\d?%\|[^|]*+\| *\d+/\d+ \[[^\]|]*+\]?$")  # a bar
_Bar = namedtuple("_Bar", "line number loss batch_id done total seconds")
# An epoch as a log tells it; None is what it does not tell. `line` is its test line, as in "line 8"
# or "cell 14, line 8", and `number` the log's own; `accuracy` is in per cent. `problem`, a sentence
# or empty, says what cannot be read in it, and `stop` that training stopped after it; `kind` is
# "test" or "val", as the line says.
LoggedEpoch = namedtuple(
    "LoggedEpoch", "line cell number bar accuracy correct images test_loss problem stop kind"
)


@dataclass(frozen=True)
class LoggedRun:
    """A run's epochs, in order."""

    epochs: list[LoggedEpoch]

    @property
    def history(self) -> History:
        """The run as a History. Raises DataError, naming the line, if the log lacks something."""
        epochs, before = [], None
        for told in self.epochs:
            number, bar, problem = told.number, told.bar, ""
            if None not in (number, before) and number != before + 1:
                problem = f"epoch {number} follows epoch {before}"
            elif told.correct is None or told.test_loss is None:
                problem = f"not a whole test line: no count or loss; expected {A_TEST!r}"
            elif bar is None:
                problem = f"a 'Test set' line without the progress bar of its epoch: {A_BAR!r}"
            elif not bar.batch_id + 1 == bar.done == bar.total:
                problem = f"its bar stopped at {bar.done} of {bar.total}, batch_id={bar.batch_id}"
            if told.problem or problem:
                raise DataError(told.problem or f"{told.line}: {problem}")
            counts, losses = (told.images, told.correct), (told.test_loss, bar.loss)
            epochs.append(Epoch(len(epochs) + 1, *counts, *losses, bar.total, bar.seconds))
            before = number
        if told.stop:
            raise DataError(told.stop)
        return History(tuple(epochs))


def parse_log(text: str | os.PathLike) -> History:
    """Read the only run in a training log, given as text or as a Path to a file.

    An epoch is a finished progress bar (`loss=... batch_id=...: 100%|...`), perhaps truncated by a
    narrow terminal, and the `Test set: ...` line after it, in the course's formats; if the clock is
    missing, it has 0 seconds. Skips other loops, other lines, and what a summary repeats.

    Raises DataError, naming the line (from 1), for a log that is malformed, cut short, lacks
    something, or holds more than one run: `read_notebook` reads those, and notebooks.
    """
    if isinstance(text, os.PathLike):
        text = read_text(as_path("text", text))
    check("text", text, isinstance(text, str), "a log's text, or a Path to it")
    if text.lstrip().startswith("{") and '"cells"' in text:
        raise DataError("line 1: this is a notebook, not a log: see read_notebook")
    runs, unread = read_runs({0: text})
    if len(runs) > 1:
        signs = "its epoch's number, bar, test images or accuracy begin again"
        unread = [f"{runs[1].epochs[0].line}: another run: {signs}; see read_notebook"]
    elif not runs and not unread:
        end = f"line {text.count(chr(10)) + 1}: the log ends without a single 'Test set' line"
        unread = [f"{end}, such as {A_TEST!r}; a file is named by a Path"]
    if unread:
        raise DataError(unread[0])
    return runs[0].history


def read_runs(cells: dict[int, str]) -> tuple[list[LoggedRun], list[str]]:
    """The runs in the outputs of cells, by number, or in a text, cell 0; and what is unreadable."""
    runs, unread = [], []
    for cell, text in cells.items():
        epochs, problems = _epochs(cell, text)
        unread += problems
        for place, epoch in enumerate(epochs, 1):
            if not runs or _begins_again(runs[-1].epochs, epoch, epochs[place : place + 1]):
                runs.append(LoggedRun([]))
            runs[-1].epochs.append(epoch)
    # One or two test lines without a bar, beside longer runs, are later tests: of the best epoch?
    most = min(3, max((len(run.epochs) for run in runs), default=0))
    few = [run for run in runs if len(run.epochs) < most]
    lone = [r for r in few if all(e.bar is None and e.number not in (0, 1) for e in r.epochs)]
    if len(lone) < len(runs):
        tests = [epoch for run in lone for epoch in run.epochs]
        unread += [f"{e.line}: a test line outside of a run, {e.accuracy:.2f}%" for e in tests]
        runs = [run for run in runs if run not in lone]
    return runs, unread


def _begins_again(run: list[LoggedEpoch], epoch: LoggedEpoch, later: list) -> bool:
    """Whether an epoch begins another run. `later` has the next one, if any."""
    before, told = run[-1], [e.number for e in run[-3:] if e.number is not None]
    if epoch.images != before.images:
        return True
    if told and epoch.number is not None:
        return epoch.number <= told[-1]
    numbered = len(run) > 1 and before.number is not None
    ended = numbered and all((e.number or 0) <= before.number for e in later)
    if epoch.number is epoch.bar is None and (ended or (before.kind != epoch.kind and not later)):
        return True  # a test after the epochs
    if len(run) == 1 and before.accuracy < 30 and before[2:4] == (None, None) != epoch[2:4]:
        return True  # after a test before them
    totals = {e.bar.total for e in (before, epoch) if e.bar}
    if epoch.cell != before.cell or before.stop or len(totals) > 1:
        return True
    # As bad as after a first epoch, and not for one alone: so in no recorded run of 467 by then.
    usual = statistics.median(100 - e.accuracy for e in run[-3:])
    back = 100 - epoch.accuracy > max(1.5 * usual, 60 - 0.6 * run[0].accuracy)
    return len(run) >= 3 and back and all(100 - e.accuracy > 1.2 * usual for e in later)


def _epochs(cell: int, text: str) -> tuple[list[LoggedEpoch], list[str]]:
    """The epochs in one text, each as it is shown last, and sentences on what is unreadable."""
    found, unread, known, bar, number, last = {}, [], 0, None, None, None
    begun = {}  # the lines on which a bar begins after the last one's end, by its total
    again = drawn = False
    events = list(_events(f"cell {cell}, " if cell else "", text))
    words = [kind for _, kind, _ in events if kind in ("test", "val")]
    turns = sum(word != after for word, after in pairwise(words))
    skipped = {"val"} if turns >= max(2, len(words) - 2) else set()  # both, in each epoch
    sizes = [s[2] for _, kind, s in events if kind in ("test", "val") and kind not in skipped]
    skipped |= {None} if any(sizes) else set()  # per cent beside counts is a summary
    skipped |= {60_000} if sizes.count(60_000) < 2 * sizes.count(10_000) else set()  # training's
    for place, (line, kind, value) in enumerate(events):
        stops = kind == "stop"
        if kind == "unread":
            unread.append(f"{line}: {value}")
        elif kind == "number":
            number = value
        elif kind == "begun":
            stops = bar and bar.done < bar.total == value
            begun[value] = line
        elif kind == "bar":
            new = _read_bar(line, number, value)
            ended = bar and bar.done == bar.total
            resumed = bar and bar.number and number and number <= bar.number
            if ended and new.batch_id <= bar.batch_id and new.loss != bar.loss and not resumed:
                if new.done <= 1:  # the next epoch's, before the test line
                    continue
                problem = "a new progress bar, but no 'Test set' line follows the one on"
                unread.append(f"{line}: {problem} {bar.line}")
            stops = bar and not ended and new.batch_id < bar.batch_id
            bar, begun = new, {}
        elif kind == "drawn":
            drawn = True
        elif kind in ("test", "val") and skipped.isdisjoint((kind, value[2])):
            before, last = last, (number, bar and bar.loss, value)
            if drawn and before in found and found[before].number == number is not None:
                del found[before]  # Lightning draws a bar at 100% with the old score first
            # A run that resumes shows its epochs again, from the first.
            again = last in found and (bar or again or last in (before, next(iter(found))))
            chance = last in found and not again  # as good as an earlier epoch
            if chance or (number is None and (bar is None or last == before)):  # neighbours are two
                last = place
            found.pop(last, None)
            problem = "".join(unread[known : known + 1])
            found[last] = LoggedEpoch(line, cell, number, bar, *value, problem, "", kind)
            begun = begun if bar else {}
            known, bar, number, drawn = len(unread), None, None, False
        if stops and found:
            found[last] = found[last]._replace(stop=f"{line}: the run stops here")
    # Other totals are loops over the test images, or downloads.
    total = next((epoch.bar.total for epoch in reversed(found.values()) if epoch.bar), None)
    if bar or total in begun:
        line, at = (bar.line, f" at batch {bar.done} of {bar.total}") if bar else (begun[total], "")
        cut = f"the log is cut short{at}: epoch {len(found) + 1} begins, but no 'Test set' line"
        unread.append(f"{line}: {cut} follows")
        if found:
            found[last] = found[last]._replace(stop=unread[-1])
    trained = [epoch for epoch in found.values() if epoch[2:4] != (None, None)]
    quoted = {(*epoch[4:7], loss) for epoch in trained for loss in (epoch.test_loss, None)}
    epochs = [e for e in found.values() if e[2:4] != (None, None) or e[4:8] not in quoted]
    return epochs, unread


def _events(place: str, text: str) -> Iterator[tuple[str, str, object]]:
    """What a text shows, in order: the line, the kind, and a match, number, score or sentence."""
    text, testing = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", text), ""  # colours
    for count, shown in enumerate(text.split("\n"), 1):
        # tqdm redraws its bar after a carriage return, so a line of the file holds many bars.
        for part in map(str.rstrip, shown.split("\r")):
            line, loss, moving = f"{place}line {count}", None, _UNDER_WAY.search(part)
            drawn = "%|" in part
            for token in _TOKEN.finditer(part):
                kind = token.lastgroup
                if token["set"] or token["row"]:
                    testing = "" if token["summary"] else (token["test"] or "").lower()
                    testing = "test" if token["row"] else testing
                if kind == "told":
                    loss = float(token["told"]) if testing else None
                elif kind in ("near", "share", "score"):
                    score, problem = _score(token) if testing else ((), "")
                    if problem:
                        yield line, "unread", problem
                    if score and drawn:
                        yield line, "drawn", None
                    if score and not moving:
                        yield line, testing, (*score, loss)
                    testing, loss = "", None
                elif kind in UNREAD:
                    yield line, "unread", f"{UNREAD[kind]}: {part[:120]!r}"
                elif kind in ("number", "row", "begun"):
                    yield line, "begun" if kind == "begun" else "number", int(token[kind])
                elif kind in ("bar", "stop"):
                    yield line, kind, token
            testing = testing if part.lower().endswith("error:") else ""  # its score follows


def _score(told: re.Match) -> tuple[tuple, str]:
    """Accuracy, correct and images of a test line, or nothing; and what is wrong with them."""
    if share := told["near"] or told["share"]:
        accuracy = float(share.strip(" %"))
        fraction = accuracy <= 1 and "%" not in share
        return (round(100 * accuracy if fraction else accuracy, 4), None, None), ""
    correct, images, stated = int(told["correct"]), int(told["images"]), told["stated"]
    if not 0 < images >= correct:
        return (), f"{correct} correct of {images} images cannot be"
    accuracy, problem = 100 * correct / images, ""
    if stated and abs(accuracy - float(stated)) > 0.501 * 10 ** -len(stated.partition(".")[2]):
        problem = f"{correct}/{images} is {accuracy:.4f}%, not {stated}%"
    return (accuracy, correct, images), problem


def _read_bar(line: str, number: int | None, bar: re.Match) -> _Bar:
    """A progress bar. Its time is from the rate if that agrees with the clock's whole seconds."""
    batch_id, rate = int(bar["batch_id"]), float((bar["rate"] or "?").replace("?", "0"))
    total = int(bar["total"] or batch_id + 1)
    done = int(bar["done"]) if bar["total"] else total - (bar["percent"] != "100")
    units = reversed((bar["elapsed"] or "0").split(":"))
    clock = sum(int(part or 0) * 60**power for power, part in enumerate(units))
    seconds = (total * rate if bar["unit"] == "s/it" else total / rate) if rate else clock
    if abs(seconds - (clock + 0.5)) > 0.51:  # leaves room for the rate's rounding
        seconds = clock
    return _Bar(line, number, float(bar["loss"]), batch_id, done, total, float(seconds))
