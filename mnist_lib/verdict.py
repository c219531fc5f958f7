"""What a run and its recipe's seeds show: the verdict on the assignment's claims, and luck."""

import csv
import functools
import itertools
from dataclasses import dataclass
from importlib import resources

import torch.nn as nn

from .data import FULL_TEST_SET, FULL_TRAINING_SET
from .errors import ParameterError
from .history import History, check_histories, check_history, load_study
from .net import count_parameters
from .parse import logged_run
from .tables import Table, mean_and_error, mean_and_sd

BUDGET = 20_000  # parameters; the assignment asks for fewer
LOGGED_PARAMETERS = 13_322  # the assignment's layer table
TARGET = 9944  # of 10,000 test images

FOOTNOTE = """\
The best epoch is picked by looking at the test set, which flatters: of many noisy epochs the
luckiest is shown. The last epoch, and the mean of the last five if there are as many, are the
honest numbers."""
GET_MNIST = """\
The other claims are about MNIST's 10,000 test digits. To judge them, run on MNIST; if it cannot \
be downloaded, put its four files into a folder and name that in MNIST_DATA."""


@dataclass(frozen=True)
class Claim:
    """One claim: what the logged run showed, what this run shows, and whether it holds here."""

    text: str
    logged: str
    measured: str
    holds: bool | None  # None: a claim about MNIST's test set, which was not looked at
    recorded: str = ""  # how many recorded seeds of the same recipe do


@dataclass(frozen=True)
class Verdict:
    """The claims, and what they were measured on; str() lays them out as a table."""

    claims: tuple[Claim, ...]
    title: str

    @property
    def holds(self) -> bool:
        """Whether every claim holds that can be judged."""
        return all(claim.holds for claim in self.judged)

    @property
    def judged(self) -> list[Claim]:
        """The claims that can be judged on this run's test set."""
        return [claim for claim in self.claims if claim.holds is not None]

    def summary(self) -> str:
        """One line: how many of the claims that can be judged hold, and which do not."""
        failed = [claim.text for claim in self.judged if not claim.holds]
        count = len(self.judged)
        line = f"{self.title}: claims confirmed: {count - len(failed)} of {count}"
        line += f"; not: {'; '.join(failed)}" if failed else ""
        left = len(self.claims) - count
        return f"{line}; {left} not judged. {GET_MNIST}" if left else line

    def __str__(self):
        answers = {True: "yes", False: "NO", None: "not judged"}
        rows = []
        for claim in self.claims:
            row = {"claim": claim.text, "logged run": claim.logged, "this run": claim.measured}
            rows.append(row | {"holds": answers[claim.holds]})
            if any(claim.recorded for claim in self.claims):
                rows[-1]["recorded seeds that do"] = claim.recorded
        last = [GET_MNIST] if len(self.judged) < len(self.claims) else []
        return "\n\n".join([self.title, str(Table(rows, left=4)), FOOTNOTE, *last])


def verdict(net: nn.Module, history: History) -> Verdict:
    """Hold any net and its History against the assignment's claims and the logged run.

    Shares of correct images are compared exactly, as whole counts. The mean of the last five epochs
    is judged if there are five. On any other test set than MNIST's, the number of parameters
    alone is judged. Beside each claim stands how many recorded seeds of the recipe
    fulfil it, if the run's recipe has such.
    """
    check_history(history)
    logged, parameters = logged_run(), count_parameters(net)
    if (recorded := history.record.get("parameters", parameters)) != parameters:
        raise ParameterError(
            f"the net has {parameters:,} parameters, but the history's had {recorded:,}"
        )
    best, end, theirs = history.best, logged.final, logged.mean_of_last_five
    first = history.first_to_reach(_same_share(TARGET, history))
    hit = f"epoch {first.epoch}" if first else "never"
    claims = [
        (
            f"fewer than {BUDGET:,} parameters",
            f"{LOGGED_PARAMETERS:,}",
            f"{parameters:,}",
            lambda run: (parameters if run is history else run.record["parameters"]) < BUDGET,
        ),
        (
            "99.44% reached, first epoch",
            f"epoch {logged.first_to_reach(TARGET).epoch}",
            f"{hit}; best {best.correct}/{history.images} at {best.epoch}",
            touched,
        ),
        ("99.44% at the last epoch", end.score, history.final.score, reached),
        (
            "last epoch, logged or better",
            end.score,
            history.final.score,
            lambda run: run.final.correct >= _same_share(end.correct, run),
        ),
        (
            "mean of last 5, logged or better",
            f"{theirs:.3f}%",
            f"{history.mean_of_last_five:.3f}%",
            lambda run: run.mean_of_last_five >= theirs,
        ),
    ]
    recorded = recorded_runs(history)
    on_mnist = history.source == "mnist" and history.images == FULL_TEST_SET
    judged = []
    for text, logged_text, measured, holds in claims[: 5 if len(history) >= 5 else 4]:
        of_net = not judged  # the first claim; the others are about MNIST's test set
        answer = holds(history) if of_net or on_mnist else None
        seeds = f"{sum(map(holds, recorded))} of {len(recorded)}" if recorded else ""
        judged.append(Claim(text, logged_text, measured, answer, seeds))
    return Verdict(tuple(judged), title=f"Verdict on {describe(history)}")


def describe(history: History) -> str:
    """What a run was trained and tested on, for titles; a sample or a part is always named."""
    check_history(history)
    trained = history.record.get("train_images")
    if history.source == "sample":
        sizes = f"{trained:,} to train, " if trained else ""
        return f"the SAMPLE ({sizes}{history.images:,} to test)"
    if history.source == "validation":
        return f"a VALIDATION split, {history.images:,} images held out of the training set"
    if history.source != "mnist":
        return f"{history.source}, {history.images:,} test images"
    if history.images != FULL_TEST_SET:
        return f"{history.images:,} test images, not MNIST's {FULL_TEST_SET:,}"
    if trained and trained < FULL_TRAINING_SET:
        return f"MNIST, trained on {trained:,} images only"
    return "MNIST"


def _same_share(correct_of_10000: int, history: History) -> int:
    """The least count that is as large a share of the history's test images."""
    return -(-correct_of_10000 * history.images // 10_000)


@functools.cache
def _recorded() -> tuple[History, ...]:
    with resources.as_file(resources.files(__package__) / "recorded.jsonl") as path:
        return tuple(load_study(path))


def recorded_studies() -> dict[str, list[History]]:
    """The recorded seeds that ship with the library, by recipe, on one machine.

    Those of the small nets are by recipe and net, as "small p998", on any machine. "notebook" is
    the run of the committed notebook.
    """
    studies = {}
    for run in _recorded():
        studies.setdefault(run.record["study"], []).append(run)
    return studies


def recorded_ideas() -> dict[str, tuple[float, float, float]]:
    """What comes of `steady` if an idea is taken from it or changed, on held-out training images.

    By idea, in points of accuracy: the mean difference over the folds, its standard error, and what
    was predicted before the runs.
    """
    text = (resources.files(__package__) / "ideas.csv").read_text(encoding="utf-8")
    return {
        row["idea"]: (float(row["difference"]), float(row["error"]), float(row["predicted"]))
        for row in csv.DictReader(text.splitlines())
    }


def recorded_runs(history: History) -> list[History]:
    """The recorded seeds of a run's recipe; none if its recipe was changed, or its data."""
    if history.recipe is None or describe(history) != "MNIST":
        return []
    seeds = [run for run in _recorded() if run.record["study"] != "notebook"]
    return [run for run in seeds if run.recipe == history.recipe]


def reached(history: History) -> bool:
    """Whether a run ends at 99.44% or more."""
    return history.final.correct >= _same_share(TARGET, history)


def touched(history: History) -> bool:
    """Whether a run has 99.44% or more at some epoch."""
    return history.best.correct >= _same_share(TARGET, history)


def summary(histories: list[History]) -> str:
    """Mean ± sd over the seeds, all counted: accuracies (%) and seconds of training a run."""
    check_histories("histories", histories)
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


def luck_table(runs: list[History], logged: list[History]) -> Table:
    """Whether 99.44% is luck, by the seeds of a recipe: how many reach it, and what the best adds.

    A logged run's rank is its place among the seeds and itself: 1 if no seed is better.
    """
    check_histories("runs", runs)
    check_histories("logged", logged)
    adds = [run.best.accuracy - run.final.accuracy for run in runs]
    blank = {f"logged run {n}": "" for n in range(1, len(logged) + 1)}
    values = {
        "touch 99.44% at some epoch": f"{sum(map(touched, runs))} of {len(runs)}",
        "end at 99.44% or more": f"{sum(map(reached, runs))} of {len(runs)}",
        "best epoch, %": mean_and_sd(run.best.accuracy for run in runs),
        "last epoch, %": mean_and_sd(run.final.accuracy for run in runs),
        "choosing the best epoch adds, points ± standard error": mean_and_error(adds),
    }
    rows = [{"": name, "seeds": value} | blank for name, value in values.items()]
    ranked = {
        "rank of the best epoch": lambda run: run.best.accuracy,
        "rank of the last epoch": lambda run: run.final.accuracy,
        "rank of the mean of the last five": lambda run: run.mean_of_last_five,
        "rank of the lowest test loss": lambda run: -min(epoch.test_loss for epoch in run),
    }
    for name, of in ranked.items():
        ranks = (1 + sum(of(run) > of(log) for run in runs) for log in logged)
        places = (f"{rank} of {len(runs) + 1}" for rank in ranks)
        rows.append({"": name, "seeds": ""} | dict(zip(blank, places, strict=True)))
    return Table(rows)


def findings(history: History) -> str:
    """What a run shows, computed from it: true for any recipe, seed or data."""
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
        most = max(abs(b - a) for a, b in itertools.pairwise(later))
        points = 100 * most / history.images
        lines.append(f"After epoch 5 it moves by up to {points:.2f} points from epoch to epoch.")
    if history.recipe and history.recipe.label_smoothing:
        lines.append("It learns from smoothed labels: its losses do not compare with the log's.")
    if recorded := recorded_runs(history):
        better = sum(run.final.correct > final.correct for run in recorded)
        lines.append(f"Of {len(recorded)} recorded seeds of its recipe, {better} end higher.")
    return "\n".join(lines)
