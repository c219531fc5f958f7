"""Runs as jobs: several at a time, on this machine or on a Dask cluster, both through joblib."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

from .data import FOLDS, MNIST, load_mnist
from .errors import MnistLibError, ParameterError, RunError
from .history import History
from .machine import own_processes, peak_memory
from .net import set_seed
from .recipe import Recipe, make_net
from .training import train


@dataclass(frozen=True)
class Job:
    """One run: all that a process needs to make it, wherever that is.

    With `source` "validation", seed n trains on 55,000 of the training images and is tested on the
    5,000 others of fold n (modulo 12).
    """

    recipe: Recipe
    seed: int
    source: str = "mnist"  # or "validation"
    threads: int = 1
    data_dir: str | None = None  # of the machine that makes the run; see load_mnist
    folder: Path | None = None  # of checkpoints, if it is to go on after its last whole epoch

    @property
    def key(self) -> tuple:
        """What tells the run from others: not where it is made, nor on how many threads."""
        return self.recipe, self.seed, self.source

    def data(self) -> MNIST:
        """The images that the run is trained and tested on."""
        data = load_mnist(self.data_dir, source="mnist")
        return data.hold_out(self.seed % FOLDS) if self.source == "validation" else data

    def run(self, verbose: bool = False) -> History:
        """Train the recipe's net. The record gets the peak memory of the process, in MB."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            set_seed(self.seed)
            net = make_net(self.recipe)
            history = train(net, self.data(), self.recipe, self.seed, verbose, self.folder)
        finally:
            torch.set_num_threads(before)
        return History(history.epochs, history.source, history.record | {"memory": peak_memory()})


def run_here(jobs: list[Job], processes: int) -> Iterator[tuple[Job, History]]:
    """Each job and its run, as they end: each in a process of its own, so many at a time.

    Raises RunError if a process is killed; what was under way keeps its checkpoints.
    """
    # A process that makes several runs takes more memory with each: one ends with its run.
    threads = joblib.parallel_config("threading", n_jobs=min(processes, len(jobs)))
    with own_processes() as call, threads:
        # No more than can run are handed out: what is stopped then has not begun the others.
        yield from _run_all(jobs, functools.partial(call, _run), pre_dispatch="n_jobs")


def run_on_cluster(jobs: list[Job], scheduler: str) -> Iterator[tuple[Job, History]]:
    """Each job and its run, as they end: on the workers of a Dask cluster, of one thread each.

    A job whose worker is lost begins again on another. Raises ParameterError if Dask is not
    installed; RunError if no scheduler answers at that address, or a worker cannot make its run.
    """
    try:
        from dask.distributed import Client
    except ImportError:
        raise ParameterError(
            "a scheduler needs dask.distributed, which is not installed: "
            "pip install 'dask[distributed]'"
        ) from None
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None
    try:
        with client, joblib.parallel_config("dask", client=client):
            backend, _ = joblib.parallel.get_active_backend()
            cores = backend.effective_n_jobs
            # With a single worker, joblib would make all runs here, in the caller's process.
            backend.effective_n_jobs = lambda n_jobs: max(2, cores(n_jobs))
            yield from _run_all(jobs, _run_on_worker, pre_dispatch="all")
    except MnistLibError:
        raise
    except Exception as error:  # of any kind: it comes from a worker's own software
        raise RunError(f"the cluster gave a run up: {type(error).__name__}: {error}") from error


def _run_all(jobs: list[Job], run, pre_dispatch: str) -> Iterator[tuple[Job, History]]:
    parallel = joblib.Parallel(
        return_as="generator_unordered", batch_size=1, pre_dispatch=pre_dispatch
    )
    ended = parallel(joblib.delayed(run)(job) for job in jobs)
    with contextlib.closing(ended):  # ends what runs, if the caller stops
        yield from ended


def _run(job: Job) -> tuple[Job, History]:
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, left behind if the run is killed
    return job, job.run()


def _run_on_worker(job: Job) -> tuple[Job, History]:
    from dask.distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:
        raise RunError(
            f"worker {worker.address} has {worker.state.nthreads} threads, which would share their "
            "random numbers: start it with --nthreads 1, as many workers as cores"
        )
    return _run(job)
