"""A run of the notebook beside the one that was committed with it."""

from .history import History, check_history
from .records import recorded_studies

# By how many points a run may differ from the same seed's on another machine: rounding grows into
# another run, and seeds differ by as much.
BOUNDS = {
    "best epoch": (lambda run: run.best.accuracy, 0.15),
    "last epoch": (lambda run: run.final.accuracy, 0.25),
    "mean of the last five": (lambda run: run.mean_of_last_five, 0.15),
}


def check_run(history: History) -> str:
    """Whether a run agrees with the committed notebook's, if it is the same recipe and seed.

    On a machine that rounds alike, with the same torch and threads, to the digit; on others within
    BOUNDS. What is printed is the recorded figures, so that a test of the notebook's outputs fails
    if they do not agree. Of any other run, the digits: test images right after each epoch.
    """
    check_history(history)
    (recorded,) = recorded_studies()["notebook"]
    if any(
        history.record.get(name) != recorded.record[name] for name in ("recipe", "seed", "data")
    ):
        return f"test images right, by epoch: {' '.join(str(epoch.correct) for epoch in history)}"
    made = ("machine", "threads", "torch")
    same = all(history.record[name] == recorded.record[name] for name in made)
    lines = []
    for name, (of, bound) in BOUNDS.items():
        there, here = of(recorded), of(history)
        agrees = abs(here - there) <= (1e-9 if same else bound)
        lines.append(f"{name}: recorded {there:.2f}%, agrees: {agrees}")
        if not agrees:
            lines.append(f"{name}: this run {here:.2f}%, farther than {bound} points")
    return "\n".join(lines)
