"""One recipe over many seeds: `python -m mnist_lib.study FOLDER --recipe NAME --seeds 0-9`.

Every run is a process of its own with a fixed number of threads, so that its numbers do not depend
on how many run beside it. (Two of one thread each together do more than one of two.) A run that is
already in FOLDER is not trained again, and one that was stopped goes on after its last whole epoch:
stop a study and start it as you like.
"""

import argparse
import dataclasses
import multiprocessing
import shutil
import statistics
import sys
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from .claims import TARGET
from .data import FOLDS, load_mnist
from .errors import MnistLibError, ParameterError, RunError
from .files import check_writable
from .history import Epoch, History, load_history, save_history
from .log import logged_run
from .net import make_net
from .processes import pool
from .recipe import Recipe, differences, get_recipe
from .training import set_seed, train


def study(
    folder: Path,
    recipe: Recipe,
    seeds: list[int],
    processes: int = 2,
    threads: int = 1,
    validation: bool = False,
    data_dir: str | None = None,
) -> list[History]:
    """Train the recipe's net once for each seed; histories in order of the seeds.

    With `validation`, seed n trains on 55,000 of the training images and is tested on the 5,000
    others of fold n (modulo 12): the test set is not looked at.

    A run's history stays in `folder` as `seed-N.json`. Raises ParameterError where such a file
    is another recipe's, or was tested on other images; RunError where a run's process is killed.
    """
    for name, value in (("processes", processes), ("threads", threads)):
        if value < 1:
            raise ParameterError(f"{name} takes a whole number of at least 1, not {value}")
    paths = {seed: folder / f"seed-{seed}.json" for seed in seeds}
    source = "validation" if validation else "mnist"
    for path in paths.values():
        if path.exists() and not _is_of(load_history(path), recipe, source):
            raise ParameterError(f"{path} is a run of another recipe or test; name another folder")
    jobs = [
        (path, recipe, seed, threads, validation, data_dir)
        for seed, path in paths.items()
        if not path.exists()
    ]
    if jobs:
        check_writable(folder)
        load_mnist(data_dir, source="mnist")  # one download, one refusal; not one a process
    others = multiprocessing.active_children()
    with pool(processes) as workers:
        try:
            running = set()
            # No more than can run: what is submitted cannot be called back.
            while running or jobs:
                while jobs and len(running) < processes:
                    running.add(workers.submit(_run, jobs.pop(0)))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for run in done:
                    path, history = run.result()
                    print(f"{path}: best {history.best.score}, final {history.final.score}")
                sys.stdout.flush()
        except BrokenProcessPool:  # which has ended the other runs by itself
            raise RunError(
                f"a run was killed, perhaps for want of memory; what {folder} holds stays: the "
                "same words go on with it"
            ) from None
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()  # their checkpoints stay
            raise
    return [load_history(path) for path in paths.values()]


def _is_of(history: History, recipe: Recipe, source: str) -> bool:
    there = history.record.get("recipe")
    return not differences(there, dataclasses.asdict(recipe)) and history.source == source


def _run(job) -> tuple[Path, History]:
    path, recipe, seed, threads, validation, data_dir = job
    torch.set_num_threads(threads)
    data = load_mnist(data_dir, source="mnist")
    if validation:
        data = data.hold_out(seed % FOLDS)
    set_seed(seed)
    under_way = path.with_suffix("")  # a folder, so that a run that is killed can go on
    history = train(make_net(recipe), data, recipe, seed, verbose=False, folder=under_way)
    # Written in the run's own folder: one that ends beside it may sweep what is half-written here.
    save_history(under_way / path.name, history)
    try:
        (under_way / path.name).replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from None
    shutil.rmtree(under_way, ignore_errors=True)
    return path, history


def summary(histories: list[History]) -> str:
    """Mean ± sd over the seeds, all counted: accuracies (%) and seconds of training a run."""
    rows = {
        "final": [history.final.accuracy for history in histories],
        "mean of last five": [history.mean_of_last_five for history in histories],
        "best epoch (chosen on the test set)": [history.best.accuracy for history in histories],
        "seconds of training": [_seconds(history, history.final) for history in histories],
        "seconds to the best epoch": [_seconds(history, history.best) for history in histories],
    }
    reached = sum(10_000 * h.final.correct >= TARGET * h.images for h in histories)
    share = f"{TARGET / 100}% at the last epoch"
    lines = [f"{len(histories)} seeds, {reached} of them with at least {share}"]
    for name, values in rows.items():
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        lines.append(f"{name:36} {statistics.mean(values):.3f}{spread}")
    return "\n".join(lines)


def _seconds(history: History, last: Epoch) -> float:
    """Of training until `last` is done, without the tests after each epoch."""
    return sum(epoch.seconds for epoch in history.epochs[: last.epoch])


def distance(histories: list[History], logged: History) -> tuple[float, float]:
    """How far runs are from a logged run: the mean of their own distances from it.

    A run's distance is the root mean square difference over the epochs, of test accuracy (per
    cent points) and of test loss (nats).
    """
    accuracy, loss = [], []
    for history in histories:
        pairs = list(zip(logged, history, strict=False))
        accuracy.append(_rms(run.accuracy - target.accuracy for target, run in pairs))
        loss.append(_rms(run.test_loss - target.test_loss for target, run in pairs))
    return statistics.fmean(accuracy), statistics.fmean(loss)


def _rms(values) -> float:
    return statistics.fmean(value * value for value in values) ** 0.5


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    try:
        seeds = list(range(int(first), int(last or first) + 1))
    except ValueError:
        seeds = []
    if not seeds:
        raise argparse.ArgumentTypeError(f"takes a seed or a range such as 0-9, not {text!r}")
    return seeds


def _setting(text: str) -> tuple[str, bool | int | float | str]:
    name, _, value = text.partition("=")
    if value in ("True", "False"):
        return name, value == "True"
    for convert in (int, float):
        try:
            return name, convert(value)
        except ValueError:
            pass
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.study", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the histories are kept")
    parser.add_argument("--recipe", default="logged", help="the recipe's name")
    parser.add_argument(
        "--set", nargs="*", type=_setting, default=[], help="fields of the recipe, as in epochs=3"
    )
    parser.add_argument("--seeds", type=_seeds, default="0-9", help="one seed or a range: 0-9")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="train on 55,000 images and test on the 5,000 others, fold by fold; no test set",
    )
    parser.add_argument("--data-dir", help="where MNIST is; see load_mnist")
    words = parser.parse_args()
    try:
        recipe = get_recipe(words.recipe, **dict(words.set))
        histories = study(
            words.folder,
            recipe,
            words.seeds,
            words.processes,
            words.threads,
            words.validation,
            words.data_dir,
        )
    except MnistLibError as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: stopped; the same words go on with it")
    print(summary(histories))
    if not words.validation:
        accuracy, loss = distance(histories, logged_run())
        print(f"distance from the logged run's curve: {accuracy:.4f} points, {loss:.5f} nats")


if __name__ == "__main__":
    main()
