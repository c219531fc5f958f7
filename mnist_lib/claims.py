"""Which of the assignment's claims hold for a net and its run."""

from dataclasses import dataclass

import torch.nn as nn

from .data import FULL_TEST_SET, FULL_TRAINING_SET
from .history import History
from .log import logged_run
from .net import count_parameters
from .table import lay_out

BUDGET = 20_000  # parameters; the assignment asks for fewer
LOGGED_PARAMETERS = 13_322  # the assignment's layer table
TARGET = 9944  # of 10,000 test images

FOOTNOTE = """\
The best epoch is picked by looking at the test set, which flatters: of many noisy epochs the
luckiest is shown. The last epoch, and in a run of five epochs or more their last five's mean,
are the honest numbers."""


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
    is judged where there are five.
    """
    logged = logged_run()
    parameters = count_parameters(net)
    target = _same_share(TARGET, history)
    hit = history.first_to_reach(target)
    logged_hit = logged.first_to_reach(TARGET)
    best = f"best {history.best.correct}/{history.images} at {history.best.epoch}"
    claims = [
        Claim(
            f"fewer than {BUDGET:,} parameters",
            f"{LOGGED_PARAMETERS:,}",
            f"{parameters:,}",
            parameters < BUDGET,
        ),
        Claim(
            "99.44% reached, first epoch",
            f"epoch {logged_hit.epoch}",
            f"epoch {hit.epoch}; {best}" if hit else f"never; {best}",
            hit is not None,
        ),
        Claim(
            "99.44% at the last epoch",
            logged.final.score,
            history.final.score,
            history.final.correct >= target,
        ),
        Claim(
            "last epoch, logged or better",
            logged.final.score,
            history.final.score,
            history.final.correct >= _same_share(logged.final.correct, history),
        ),
    ]
    if len(history) >= 5:
        claims.append(
            Claim(
                "mean of last 5, logged or better",
                f"{logged.mean_of_last_five:.3f}%",
                f"{history.mean_of_last_five:.3f}%",
                history.mean_of_last_five >= logged.mean_of_last_five,
            )
        )
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
