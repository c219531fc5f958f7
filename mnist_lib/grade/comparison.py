"""Compares a run of the notebook with the one committed with it."""

from ..history import History, check_history
from .records import recorded_studies

# By how many points a run may differ from the same seed on another machine: rounding errors grow
# into a different run, and different seeds differ by as much.
BOUNDS = {
    "best epoch": (lambda run: run.best.accuracy, 0.15),
    "last epoch": (lambda run: run.final.accuracy, 0.25),
    "mean of the last five": (lambda run: run.mean_of_last_five, 0.15),
}


def check_run(history: History) -> str:
    """Whether a run agrees with the committed notebook's, if it has the same recipe, seed and data.

    Exact on a machine that rounds alike, with the same torch and threads; within BOUNDS on others.
    The text has the recorded figures, so a test of the notebook's outputs fails unless they agree.
    For any other run, it has the number of test images right in each epoch.
    """
    check_history(history)
    (committed,) = recorded_studies()["notebook"]
    recorded, record = committed.record, history.record
    if any(record.get(name) != recorded[name] for name in ("recipe", "seed", "data")):
        return f"test images right, by epoch: {' '.join(str(epoch.correct) for epoch in history)}"
    exact = all(record.get(name) == recorded[name] for name in ("machine", "threads", "torch"))
    lines = []
    for name, (figure, bound) in BOUNDS.items():
        expected, actual = figure(committed), figure(history)
        agrees = abs(actual - expected) <= (1e-9 if exact else bound)
        lines.append(f"{name}: recorded {expected:.2f}%, agrees: {agrees}")
        if not agrees:
            limit = "the same" if exact else f"within {bound} points"
            lines.append(f"{name}: this run {actual:.3f}%, not {limit}")
    return "\n".join(lines)
