"""A run as a job, for a process of its own on this machine or a worker of a Dask cluster."""

import contextlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn
from tqdm import tqdm

from ..base import __version__
from ..base.errors import DataError, ParameterError, RunError, check
from ..base.memory import peak_memory
from ..data import FOLDS, load_mnist
from ..history import History, check_history
from ..net import set_seed
from ..nets import import_net
from ..recipe import Recipe, make_net
from ..runs.checkpoint import epochs_kept
from ..training import train
from .processes import own_processes


@dataclass(frozen=True)
class Job:
    """One run: everything that a process on any machine needs to make it."""

    recipe: Recipe
    seed: int
    source: str = "mnist"  # or "validation": seed n tests on MNIST.hold_out's fold n (modulo 12)
    threads: int = 1
    data_dir: str | None = None  # on the machine that makes the run; see load_mnist
    folder: Path | None = None  # of checkpoints, to resume after the last whole epoch
    train_images: int | None = None  # that many of them, as `MNIST.take` gives; by default all

    @property
    def key(self) -> tuple:
        """What distinguishes the run: not where it is made, nor on how many threads."""
        return self.recipe, self.seed, self.source

    def __str__(self):
        return f"{self.recipe.name}, net {self.recipe.net}, seed {self.seed}"

    @property
    def epochs_kept(self) -> int:
        """How many whole epochs the run has already; 0 without a folder."""
        return epochs_kept(self.folder) if self.folder else 0

    def run(self, verbose: bool = False) -> tuple[nn.Module, History]:
        """Train the recipe's net. The record includes the peak memory of the process, in MB."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            set_seed(self.seed)
            net, data = make_net(self.recipe), load_mnist(self.data_dir, source="mnist")
            if self.source == "validation":
                data = data.hold_out(self.seed % FOLDS)
            data = data.take(self.train_images)
            history = train(net, data, self.recipe, self.seed, verbose, self.folder)
        finally:
            torch.set_num_threads(before)
        return net, replace(history, record=history.record | {"memory": peak_memory()})


def job_of(run: History, folder: Path | None = None, data_dir: str | None = None) -> Job:
    """The job that repeats a recorded run, on the same number of threads."""
    check_history(run)
    recipe, seed = run.recipe, run.record.get("seed")
    if "distilled" in run.record:
        raise ParameterError("the run learnt from other nets instead of labels: see distill.py")
    if recipe is None or seed is None:
        raise ParameterError("the run has no recipe and seed to train again")
    check("source", run.source, run.source in ("mnist", "validation"), "mnist or validation")
    given = {name: run.record[name] for name in ("threads", "train_images") if name in run.record}
    return Job(recipe, seed, run.source, folder=folder, data_dir=data_dir, **given)


@contextlib.contextmanager
def in_processes(processes: int) -> Iterator[Callable[[Job], Future]]:
    """A function that submits a job to a process of its own, at most `processes` at a time.

    The end of the block stops unfinished jobs; checkpoints stay. A killed job raises RunError.
    """
    # A process that makes several runs takes more memory with each: it ends with its run.
    with ThreadPoolExecutor(processes) as pool, own_processes() as call:
        try:
            yield lambda job: pool.submit(call, _run, job)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def on_cluster(scheduler: str) -> Iterator[Callable[[Job], Future]]:
    """A function that submits a job to the workers of a Dask cluster, of one thread each.

    A lost worker's job starts again on another. RunError if none answers, or lacks this mnist_lib.
    """
    try:
        from dask.distributed import Client
    except ImportError:
        raise ParameterError("a scheduler needs Dask: pip install '.[dask]'") from None
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None
    with client:
        ask = pkgutil.resolve_name, f"{__name__}:__version__"
        try:
            found = client.run(*ask, on_error="return") | {scheduler: client.run_on_scheduler(*ask)}
            if len(found) == 1:
                print(f"{scheduler} has no workers yet: waiting for one", flush=True)
                found["its first worker"] = client.submit(*ask, pure=False).result()
        except Exception as error:  # an import can raise anything
            found = {scheduler: error}
        for where, version in found.items():
            if version != __version__:
                need = f"mnist_lib {__version__}, as this machine has, for scheduler and workers"
                raise RunError(f"install {need}: an import at {where} gave {version!r}")
        pool = client.get_executor(pure=False)
        yield lambda job: pool.submit(_run_on_worker, job)


def result_of(future: Future, file: Path) -> History:
    """The run of a submitted job; RunError, naming the study's `file`, if it failed."""
    try:
        return future.result()
    except (ParameterError, DataError):  # arguments that do not fit, or no data
        raise
    except Exception as error:  # a worker of a cluster can raise anything
        expected = isinstance(error, RunError)
        reason = error if expected else f"a run was given up: {type(error).__name__}: {error}"
        again = "once the cause is gone, the same command goes on"
        raise RunError(f"{reason}; {file} keeps the runs that ended: {again}") from error


def _run(job: Job) -> History:
    tqdm.set_lock(threading.RLock())  # its default is a semaphore, which a killed run leaves behind
    import_net(job.recipe.net)  # `study` takes only nets that its user has imported
    return job.run()[1]


def _run_on_worker(job: Job) -> History:
    from dask.distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:
        advice = "which would share random numbers: start it with --nthreads 1, one per core"
        raise RunError(f"worker {worker.address} has {worker.state.nthreads} threads, {advice}")
    return _run(job)
