"""What a run and its recipe's seeds show: a verdict on the assignment's claims, and luck."""

import html
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn as nn

from ..base.errors import ParameterError, is_whole
from ..base.tables import Table, count_and_interval
from ..data import FULL_TEST_SET, MNIST
from ..evaluation import count_parameters, evaluate
from ..history import TARGET, History, check_history, describe
from .records import logged_run, recorded_runs

BUDGET = 20_000  # parameters; the assignment asks for fewer
AGREEMENT = 5  # of 10,000 digits: other machines round otherwise
LOGGED_PARAMETERS = 13_322  # the assignment's layer table

FOOTNOTE = """\
The best epoch is picked by looking at the test set, which flatters: of many noisy epochs the
luckiest is shown. The last epoch, and the mean of the last five if there are as many, are the
honest numbers."""
GET_MNIST = """\
The other claims are about MNIST's 10,000 test digits. To judge them, run on MNIST; if it cannot \
be downloaded, put its four files into a folder and name that in MNIST_DATA."""


@dataclass(frozen=True)
class Claim:
    """A claim, what the logged run and this run show, and whether it holds for this run."""

    text: str
    logged: str
    measured: str
    holds: bool | None  # None if it is about MNIST's test set and this run used another
    recorded: str = ""  # how many of the recipe's recorded seeds it holds for


@dataclass(frozen=True)
class Verdict:
    """The claims, and a title naming the test set; str() gives text, a notebook HTML."""

    claims: tuple[Claim, ...]
    title: str

    @property
    def holds(self) -> bool:
        """Whether every claim that can be judged holds."""
        return all(claim.holds for claim in self.judged)

    @property
    def judged(self) -> list[Claim]:
        """The claims that can be judged on this run's test set."""
        return [claim for claim in self.claims if claim.holds is not None]

    def summary(self) -> str:
        """One line: how many of the judged claims hold, and which do not."""
        failed = [claim.text for claim in self.judged if not claim.holds]
        count = len(self.judged)
        line = f"{self.title}: claims confirmed: {count - len(failed)} of {count}"
        line += f"; not: {'; '.join(failed)}" if failed else ""
        left = len(self.claims) - count
        return f"{line}; {left} not judged. {GET_MNIST}" if left else line

    @property
    def parts(self) -> list[str | Table]:
        """The title, a row per claim, and what to know about them."""
        answers = {True: "yes", False: "NO", None: "not judged"}
        rows = []
        for claim in self.claims:
            row = {"claim": claim.text, "logged run": claim.logged, "this run": claim.measured}
            rows.append(row | {"holds": answers[claim.holds]})
            if any(claim.recorded for claim in self.claims):
                rows[-1]["recorded seeds that do"] = claim.recorded
        last = [GET_MNIST] if len(self.judged) < len(self.claims) else []
        return [self.title, Table(rows, left=4), FOOTNOTE, *last]

    def __str__(self):
        return "\n\n".join(map(str, self.parts))

    __repr__ = __str__

    def _repr_html_(self):
        texts = (f"<p>{html.escape(p)}</p>" if isinstance(p, str) else p for p in self.parts)
        return "".join(t._repr_html_() if isinstance(t, Table) else t for t in texts)


def verdict(net: nn.Module | int, history: History, data: MNIST | None = None) -> Verdict:
    """Judge any net, or its number of parameters, and its History by the assignment's claims.

    Accuracies are compared exactly, as counts of images. The mean of the last five epochs is judged
    if there are five; without MNIST's test set, only the number of parameters is. With `data`, the
    net is tested, and must score what the history's last epoch says. If the recipe has recorded
    seeds, each claim says how many of them it holds for.
    """
    check_history(history)
    logged, size = logged_run(), net if is_whole(net) else count_parameters(net)
    if (recorded := history.record.get("parameters", size)) != size:
        raise ParameterError(f"the net has {size:,} parameters, but the history's had {recorded:,}")
    best, end, last = history.best, logged.final, history.final.score
    first = history.first_to_reach(history.same_share(TARGET))
    hit = f"epoch {first.epoch}" if first else "never"
    hit = f"{hit}; best {best.correct}/{history.images} at {best.epoch}"
    logged_hit = f"epoch {logged.first_to_reach(TARGET).epoch}"
    seeds = recorded_runs(history)
    on_mnist = history.source == "mnist" and history.images == FULL_TEST_SET

    def small(run: History) -> bool:
        return run.record.get("parameters", size) < BUDGET

    def claim(text: str, logged_text: str, measured: str, holds: Callable) -> Claim:
        answer = holds(history) if on_mnist or holds is small else None
        confirmed = count_and_interval(sum(map(holds, seeds)), len(seeds)) if seeds else ""
        return Claim(text, logged_text, measured, answer, confirmed)

    least, mean = history.same_share(end.correct), logged.mean_of_last_five
    claims = [
        claim(f"fewer than {BUDGET:,} parameters", f"{LOGGED_PARAMETERS:,}", f"{size:,}", small),
        claim("99.44% at some epoch", logged_hit, hit, lambda run: run.touched),
        claim("99.44% at the last epoch", end.score, last, lambda run: run.ends_at_target),
        claim("last epoch as good as logged", end.score, last, lambda r: r.final.correct >= least),
    ]
    if len(history) >= 5:
        text = "mean of last 5 as good as logged"
        means = (f"{run.mean_of_last_five:.3f}%" for run in (logged, history))
        claims.append(claim(text, *means, lambda run: run.mean_of_last_five >= mean))
    if data is not None:
        correct, images = evaluate(net, data, bounded=True)[1], len(data.test_images)
        if images != history.images:
            problem = f"data must have the history's {history.images:,} test images"
            raise ParameterError(f"{problem}, got {images:,}")
        agrees = abs(correct - history.final.correct) * 10_000 <= AGREEMENT * images
        score = f"{correct}/{images}" + ("" if agrees else f", not {history.final.correct}")
        claims.append(Claim("the net scores what its log says", "", score, agrees))
    return Verdict(tuple(claims), title=f"Verdict on {describe(history)}")


def findings(history: History) -> str:
    """What a run shows, in sentences that hold for any recipe, seed and data."""
    check_history(history)
    best, final = history.best, history.final
    lowest = min(history, key=lambda epoch: epoch.test_loss)
    lines = [
        f"This run was tested on {describe(history)}.",
        f"Its best epoch is {best.epoch} of {len(history)}: {best.score}.",
        f"Its last epoch has {final.score}.",
        f"Its test loss is lowest at epoch {lowest.epoch}, {lowest.test_loss:.4f}, and ends at "
        f"{final.test_loss:.4f}.",
    ]
    later = [epoch.correct for epoch in history.epochs[4:]]
    if len(later) > 1:
        points = 100 * max(abs(b - a) for a, b in itertools.pairwise(later)) / history.images
        lines.append(f"After epoch 5 it moves by up to {points:.2f} points from epoch to epoch.")
    if history.recipe and history.recipe.label_smoothing:
        lines.append("It learns from smoothed labels: its losses do not compare with the log's.")
    if recorded := recorded_runs(history):
        better = sum(run.final.correct > final.correct for run in recorded)
        lines.append(f"Of {len(recorded)} recorded seeds of its recipe, {better} end higher.")
    return "\n".join(lines)
