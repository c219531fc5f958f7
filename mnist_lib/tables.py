"""All that is printed: a run's verdict, the seeds of a study, tables as text and as Markdown."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn as nn

from .data import FULL_TEST_SET, FULL_TRAINING_SET
from .history import History
from .log import logged_run
from .net import count_parameters

BUDGET = 20_000  # parameters; the assignment asks for fewer
LOGGED_PARAMETERS = 13_322  # the assignment's layer table
TARGET = 9944  # of 10,000 test images

FOOTNOTE = """\
The best epoch is picked by looking at the test set, which flatters: of many noisy epochs the
luckiest is shown. The last epoch, and in a run of five epochs or more their last five's mean,
are the honest numbers."""


def lay_out(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Rows as lines of aligned columns: `left` columns to the left, the others to the right.

    The first row is the head. The second line is a rule.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = (c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(cells))
        lines.append("  ".join(padded).rstrip())
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [lines[0], rule, *lines[1:]]


def markdown(rows: list[tuple[str, ...]], left: int = 1) -> str:
    """Rows as a Markdown table: the first is its head, `left` columns to the left."""
    rule = ["---" if n < left else "---:" for n in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


@dataclass(frozen=True)
class Claim:
    """One claim: what the logged run showed, what this run shows, and whether it holds here."""

    text: str
    logged: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Verdict:
    """The claims, and what they were measured on; str() lays them out as a table."""

    claims: tuple[Claim, ...]
    title: str

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    def summary(self) -> str:
        """One line: how many hold, and which do not."""
        failed = [claim.text for claim in self.claims if not claim.holds]
        held = len(self.claims) - len(failed)
        line = f"{self.title}: {held} of {len(self.claims)} claims hold"
        return f"{line}; not: {'; '.join(failed)}" if failed else line

    def __str__(self):
        rows = [("claim", "logged run", "this run", "holds")]
        rows += [(c.text, c.logged, c.measured, "yes" if c.holds else "NO") for c in self.claims]
        return "\n".join([self.title, "", *lay_out(rows, left=4), "", FOOTNOTE])


def verdict(net: nn.Module, history: History) -> Verdict:
    """Hold any net and its History against the assignment's claims and the logged run.

    Shares of correct images are compared exactly, as whole counts. The mean of the last five epochs
    is judged if there are five.
    """
    logged, parameters = logged_run(), count_parameters(net)
    budget = f"fewer than {BUDGET:,} parameters"
    target = _same_share(TARGET, history)
    first, logged_first = history.first_to_reach(target), logged.first_to_reach(TARGET)
    best = f"best {history.best.correct}/{history.images} at {history.best.epoch}"
    hit = f"epoch {first.epoch}; {best}" if first else f"never; {best}"
    end, logged_end = history.final, logged.final
    same_end = _same_share(logged_end.correct, history)
    claims = [
        Claim(budget, f"{LOGGED_PARAMETERS:,}", f"{parameters:,}", parameters < BUDGET),
        Claim("99.44% reached, first epoch", f"epoch {logged_first.epoch}", hit, bool(first)),
        Claim("99.44% at the last epoch", logged_end.score, end.score, end.correct >= target),
        Claim("last epoch, logged or better", logged_end.score, end.score, end.correct >= same_end),
    ]
    if len(history) >= 5:
        text = "mean of last 5, logged or better"
        theirs, ours = logged.mean_of_last_five, history.mean_of_last_five
        claims.append(Claim(text, f"{theirs:.3f}%", f"{ours:.3f}%", ours >= theirs))
    return Verdict(tuple(claims), title=f"Verdict on {describe(history)}")


def describe(history: History) -> str:
    """What a run was trained and tested on, for titles; a sample or a part is always named."""
    trained = history.record.get("train_images")
    if history.source == "sample":
        sizes = f"{trained:,} to train, " if trained else ""
        return f"the SAMPLE ({sizes}{history.images:,} to test)"
    if history.source == "validation":
        return f"a VALIDATION split, {history.images:,} images held out of the training set"
    if history.images != FULL_TEST_SET:
        return f"{history.images:,} test images, not MNIST's {FULL_TEST_SET:,}"
    if trained and trained < FULL_TRAINING_SET:
        return f"MNIST, trained on {trained:,} images only"
    return "MNIST"


def _same_share(correct_of_10000: int, history: History) -> int:
    """The least count that is as large a share of the history's test images."""
    return -(-correct_of_10000 * history.images // 10_000)


def reached(history: History) -> bool:
    """Whether a run ends at 99.44% or more."""
    return history.final.correct >= _same_share(TARGET, history)


def touched(history: History) -> bool:
    """Whether a run has 99.44% or more at some epoch."""
    return history.best.correct >= _same_share(TARGET, history)


def mean_and_sd(values: Iterable[float], digits: int = 3) -> str:
    """As in `99.488 ± 0.036`; of a single value, that alone."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def mean_and_error(values: Iterable[float], digits: int = 3) -> str:
    """A mean difference and its standard error, as in `-0.032 ± 0.016`; of one value, itself."""
    values = list(values)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return f"{statistics.fmean(values):+.{digits}f}" + (
        "" if error is None else f" ± {error:.{digits}f}"
    )


def summary(histories: list[History]) -> str:
    """Mean ± sd over the seeds, all counted: accuracies (%) and seconds of training a run."""
    rows = {
        "final": [history.final.accuracy for history in histories],
        "mean of last five": [history.mean_of_last_five for history in histories],
        "best epoch (chosen on the test set)": [history.best.accuracy for history in histories],
        "seconds of training": [history.seconds for history in histories],
    }
    share = f"{TARGET / 100}% at the last epoch"
    lines = [
        f"{len(histories)} seeds, {sum(map(reached, histories))} of them with at least {share}"
    ]
    return "\n".join([*lines, *(f"{name:36} {mean_and_sd(v)}" for name, v in rows.items())])
