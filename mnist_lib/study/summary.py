"""The seeds of a study in a few lines."""

from ..base.tables import mean_and_sd
from ..history import TARGET, History, check_histories


def summary(histories: list[History]) -> str:
    """Mean ± sd over all seeds: accuracies (%) and seconds of training per run."""
    check_histories("histories", histories)
    rows = {
        "final": [history.final.accuracy for history in histories],
        "mean of last five": [history.mean_of_last_five for history in histories],
        "best epoch (chosen on the test set)": [history.best.accuracy for history in histories],
        "seconds of training": [history.seconds for history in histories],
    }
    reached = sum(history.reached for history in histories)
    goal = f"at least {TARGET / 100}% at the last epoch"
    head = f"{len(histories)} seeds, {reached} of them with {goal}"
    return "\n".join([head, *(f"{name:36} {mean_and_sd(v)}" for name, v in rows.items())])
