"""Repeats a recorded run: the same bits, or at least as close as two seeds?"""

import statistics

from ..history import History
from .jobs import job_of


def verify(run: History, others=(), verbose=True, data_dir: str | None = None) -> tuple[bool, str]:
    """Train a recorded run again: whether it holds, and the result in a sentence or two.

    It holds if every epoch has the same count and losses to the bit. A machine that rounds
    differently cannot give those: there the last epoch's accuracy may differ by 2.8 sd, over the
    `others` of the same recipe and source. By chance, two seeds differ by more in one case of 20.
    """
    job = job_of(run, data_dir=data_dir)
    _, again = job.run(verbose)
    theirs, ours = _environment(run), _environment(again)
    result = f"{job}: final {run.final.score} recorded, {again.final.score} trained again"
    if _bits(again) == _bits(run):
        return True, f"{result}; the same bits in all {len(run)} epochs"
    if theirs == ours:
        return False, f"{result}; NOT the same bits, though the machine is the same, {ours}"
    result += f"; the bits differ, as machines round differently: {theirs} there, {ours} here"
    same = [o for o in others if (o.recipe, o.source) == (run.recipe, run.source)]
    if len(same) < 3:
        return False, f"{result}; too few seeds of the recipe to say how much is chance"
    most = 1.96 * 2**0.5 * statistics.stdev(other.final.accuracy for other in same)
    difference = again.final.accuracy - run.final.accuracy
    holds = abs(difference) <= most
    within = f"{'within' if holds else 'NOT within'} the {most:.2f} that two seeds differ by"
    return holds, f"{result}. That is {difference:+.2f} points, {within}"


def _bits(run: History) -> list[tuple]:
    return [(epoch.correct, epoch.test_loss, epoch.last_batch_loss) for epoch in run]


def _environment(run: History) -> str:
    names = {"machine": "", "device": "", "threads": "threads ", "torch": "torch "}
    texts = (", ".join(f"{names[n]}{p.get(n, 'unknown')}" for n in names) for p in run.environments)
    return "; then ".join(dict.fromkeys(texts))
