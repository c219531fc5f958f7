"""Where the luck sits: how much an accuracy moves from epoch to epoch, and from seed to seed."""

import bisect
import random
import statistics
from collections.abc import Sequence

from ..base.errors import check
from ..base.tables import Table, mean_and_error
from ..history import TARGET, History, check_histories
from ..recipe import RECIPES
from .records import held_out

# How many of a recipe's last epochs no longer show a trend; for other recipes, the last third.
PLATEAU = {"assignment": 10, "long": 6, "steady": 3, "fast": 3}
RESAMPLES = 400  # of the seeds, for an interval


def luck_table(studies: dict[str, list[History]]) -> Table:
    """Where the luck sits, a row for each study of one recipe's seeds.

    The mean of each run's last epochs, and accuracy on held-out training images, if recorded; the
    standard deviations (points) from epoch to epoch and from seed to seed; what choosing the best
    epoch adds to the last (points, ± standard error); and the chance that a seed's run shows
    99.44% at some epoch, and that it ends there, with 95% intervals from resampled seeds.
    """
    check("studies", studies, isinstance(studies, dict), "a dict of names and lists of runs")
    rows = []
    for name, runs in studies.items():
        check_histories(f"studies[{name!r}]", runs)
        kinds = {(run.recipe, run.source, len(run)) for run in runs}
        alike = len(kinds) == 1 < min(len(runs), len(runs[0]))
        many = f"{len(runs)} of {len(runs[0])} epochs"
        check(f"studies[{name!r}]", many, alike, "two seeds of one recipe, of two epochs, or more")
        own = runs[0].recipe
        recipe = own.name if own and own == RECIPES.get(own.name) else None  # unchanged
        last = min(len(runs[0]), PLATEAU.get(recipe, max(2, -(-len(runs[0]) // 3))))
        level, epoch_sd, seed_sd, *chances = _luck(runs, last)
        draw = random.Random(0).choices
        drawn = [_luck(draw(runs, k=len(runs)), last)[3:] for _ in range(RESAMPLES)]
        intervals = [statistics.quantiles(values, n=40) for values in zip(*drawn, strict=True)]
        found = [
            [f"{v:.2f}" if v < 0.995 else ">0.99" for v in (chance, interval[0], interval[-1])]
            for chance, interval in zip(chances, intervals, strict=True)
        ]
        texts = ["{} ({} to {})".format(*values) for values in found]
        folds = held_out().get(recipe)
        rows.append(
            {
                "recipe": name,
                "seeds": str(len(runs)),
                "late epochs, %": f"{level:.2f}",
                "held out, %": f"{statistics.fmean(folds.values()):.2f}" if folds else "",
                "sd over epochs": f"{epoch_sd:.3f}",
                "sd over seeds": f"{seed_sd:.3f}",
                "best epoch adds": mean_and_error(r.best.accuracy - r.final.accuracy for r in runs),
                "chance of 99.44% at some epoch": texts[0],
                "at the last": texts[1],
            }
        )
    return Table(rows)


def _luck(runs: Sequence[History], last: int) -> tuple[float, ...]:
    """Mean of the last epochs, two standard deviations, chances to touch 99.44% and to end there.

    An accuracy is modelled as its epoch's mean, plus the seed's offset, which is normal, plus noise
    drawn from the residuals of the last epochs of all seeds.
    """
    curves = [[epoch.accuracy for epoch in run] for run in runs]
    means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
    level = statistics.fmean(means[-last:])
    offsets = [statistics.fmean(curve[-last:]) - level for curve in curves]
    count = len(runs) * last
    lost = (count / (count - len(runs) - last + 1)) ** 0.5  # degrees of freedom
    noise = sorted(
        lost * (value - mean - offset)
        for curve, offset in zip(curves, offsets, strict=True)
        for value, mean in zip(curve[-last:], means[-last:], strict=True)
    )
    variance = statistics.fmean(value**2 for value in noise)
    spread = max(0, statistics.variance(offsets) - variance / last) ** 0.5
    touch = end = 0
    for quantile in range(1, 40, 2):  # twenty seeds, equally likely
        offset, never = spread * statistics.NormalDist().inv_cdf(quantile / 40), 1
        for mean in means:
            below = bisect.bisect(noise, (TARGET - 0.5) / 100 - mean - offset) / count
            never *= below
        touch, end = touch + (1 - never) / 20, end + (1 - below) / 20
    return level, variance**0.5, spread, touch, end
