"""A study: recipes x seeds, one line of a file per run."""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import joblib
from tqdm import tqdm

from ..base.errors import ParameterError, RunError, as_seed, check, check_flags, check_whole
from ..base.files import LOCK, PATIENCE, append_line, as_path, check_writable, lock
from ..data import load_mnist
from ..history import History, load_study
from ..log import make_bar
from ..recipe import Recipe, check_recipe
from .jobs import Job, in_processes, on_cluster, result_of


def study(
    file: str | os.PathLike,
    recipes: Recipe | list[Recipe],
    seeds: list[int],
    processes: int | None = None,
    threads: int = 1,
    validation: bool = False,
    data_dir: str | None = None,
    scheduler: str | None = None,
) -> list[History]:
    """Train each recipe's net once for each seed; histories recipe by recipe, in order of seeds.

    With `validation`, the test set is not used: see Job. Runs `processes` at a time, by default the
    cores over `threads`; or on all workers of the Dask cluster whose `scheduler` has this address,
    such as "tcp://10.0.0.1:8786", each of which finds MNIST on its own machine.

    Each run becomes a line of `file`, a .jsonl. RunError if a run fails; the same call continues.
    """
    file = study_file(file)
    unfinished = file.with_suffix(".unfinished")  # checkpoints of the runs under way
    check("seeds", seeds, isinstance(seeds, Iterable), "a list of seeds, such as range(10)")
    seeds = [as_seed(seed) for seed in seeds]
    check_flags(validation=validation)
    check_whole("threads", threads)
    if processes is not None and scheduler is not None:
        raise ParameterError("processes are of this machine, a scheduler has its own: name one")
    cores = joblib.cpu_count()
    processes = max(1, cores // threads) if processes is None else processes
    check_whole("processes", processes)
    wanted, one = {}, isinstance(recipes, str) or not isinstance(recipes, Iterable)
    for recipe in [recipes] if one else recipes:
        check_recipe(recipe, with_net=True)
        for seed in seeds:
            source = "validation" if validation else "mnist"
            folder = None if scheduler else unfinished / _folder_name(recipe, seed, source)
            job = Job(recipe, seed, source, threads, data_dir, folder)
            wanted[job.key] = job
    done = runs_by_key(file)
    jobs = [job for key, job in wanted.items() if key not in done]
    pace = f"by the workers of {scheduler}" if scheduler else f"{processes} at a time"
    made = f"already in {file}: {len(wanted) - len(jobs)}"
    print(f"runs to make: {len(jobs)}, {pace}; {made}", flush=True)
    if scheduler is None and processes * threads > cores:
        print(f"{processes} runs of {threads} threads compete for {cores} cores", file=sys.stderr)
    if jobs:
        if scheduler is None:
            load_mnist(data_dir, source="mnist")  # download or fail once, not in every process
        check_writable(unfinished, PATIENCE)
        try:
            with on_cluster(scheduler) if scheduler else in_processes(processes) as submit:
                _run_all(jobs, submit, file)
        except KeyboardInterrupt:
            done = runs_by_key(file)
            epochs = sum(j.recipe.epochs if j.key in done else j.epochs_kept for j in jobs)
            kept = f"epochs kept: {epochs}; the same study goes on after them"
            print(f"stopped; {kept if epochs else 'nothing is kept yet'}", file=sys.stderr)
            raise
        done = runs_by_key(file)
    for key in done.keys() & wanted.keys():  # a study may have been killed after a run's line
        if wanted[key].folder:
            shutil.rmtree(wanted[key].folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other runs are under way, or other files are in it
        if not {*unfinished.iterdir()} - {unfinished / LOCK}:  # else another study may hold it
            (unfinished / LOCK).unlink(missing_ok=True)
        unfinished.rmdir()
    if wanted.keys() - done.keys():
        raise RunError(f"{file} was changed during the study: the same call goes on")
    return [done[key] for key in wanted]


def study_file(file: str | os.PathLike) -> Path:
    """The path of a study's file: a name without .jsonl gets it."""
    file = as_path("file", file)
    if file.is_dir():
        raise ParameterError(f"{file} is a folder: name a file, such as {file / 'seeds.jsonl'}")
    return file if file.suffix == ".jsonl" else file.with_name(f"{file.name}.jsonl")


def _folder_name(recipe: Recipe, seed: int, source: str) -> str:
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]  # recipes may share a name
    return f"{recipe.name}-{recipe.net}-{digest}-{source}-seed-{seed}".replace(":", ".")


def _run_all(jobs: list[Job], submit: Callable[[Job], Future], file: Path) -> None:
    """Run the jobs and add each run to the file as it ends, beside a bar of all epochs."""
    for job in jobs:
        if job.epochs_kept:
            print(f"{job}: goes on after epoch {job.epochs_kept}", flush=True)
    total, before = sum(job.recipe.epochs for job in jobs), sum(job.epochs_kept for job in jobs)
    with make_bar(total=total, initial=before, unit="epoch", smoothing=0) as bar:
        pending = {submit(job): job for job in jobs}
        while pending:
            ended, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            for future in sorted(ended, key=lambda f: f.cancelled() or f.exception() is not None):
                job = pending.pop(future)
                history = result_of(future, file)
                score = f"best {history.best.score}, final {history.final.score}"
                with lock(file.with_suffix(".unfinished"), PATIENCE):
                    if job.key in runs_by_key(file):
                        score = f"not added again, {file} has it from another study"
                    else:
                        append_line(file, history.to_json())
                tqdm.write(f"{job}: {score}", file=sys.stdout)
            left = sum(job.recipe.epochs - job.epochs_kept for job in pending.values())
            if total - left > bar.n:
                bar.update(total - left - bar.n)


def runs_by_key(file: Path) -> dict[tuple, History]:
    """The first run of a study's file for each recipe, seed and source, as `Job.key`."""
    runs = reversed(load_study(file) if file.exists() else [])
    # Without a recipe, a run is from a version with other fields.
    return {(run.recipe, run.record.get("seed"), run.source): run for run in runs if run.recipe}
