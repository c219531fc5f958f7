"""How many threads of the CPU a run takes: pinned, or as many as it had before, or the faster."""

import math
import os
import statistics
import time
from pathlib import Path

import joblib
import torch
import torch.nn.functional as F

from .augment import augment, random_affine
from .errors import MnistLibError, as_seed, check_whole, is_whole
from .evaluation import crop_of
from .history import load_history
from .machine import keep_freed_memory
from .recipe import Recipe, differences, make_net

STEPS = 11  # of a trial; the first warms up, the median of the others counts
STARTED = torch.get_num_threads()  # with; of OMP_NUM_THREADS, if that is set


def choose_threads(
    threads: int | None, recipe: Recipe, seed: int | None, folder: Path | None, device: torch.device
) -> tuple[int, str]:
    """Set how many threads torch has in this process, for a run to come: how many, and why.

    `threads` pins them, as the environment variable OMP_NUM_THREADS does. Else, since a number of
    threads is part of what makes the bits of a run, those of the run that `folder` holds are taken
    if it is of this recipe and seed and this process may use so many cores. Else one thread and a
    thread a core take some steps of training each, and the faster has it: threads wait for each
    other by spinning, and on cores that others keep busy they do little else.

    Nothing is measured for another `device` than the CPU. torch's random state stays. Raises
    ParameterError as `check_threads` does.
    """
    check_threads(threads)
    chosen, why = _chosen(threads, recipe, as_seed(seed), folder, device)
    torch.set_num_threads(chosen)
    return chosen, why


def check_threads(threads: int | None) -> None:
    """Raise ParameterError unless `threads` is None or a whole number from 1 to 256."""
    if threads is not None:
        check_whole("threads", threads, most=256)


def _chosen(
    threads: int | None, recipe: Recipe, seed: int, folder: Path | None, device: torch.device
) -> tuple[int, str]:
    if threads is not None:
        return int(threads), "as given"
    if os.environ.get("OMP_NUM_THREADS"):
        return STARTED, "set by OMP_NUM_THREADS"
    cores = joblib.cpu_count()  # of this process: by its affinity and its container's share
    before = _threads_of(folder, recipe, seed)
    if is_whole(before) and 1 <= before <= cores:
        return before, "as this run had before"
    if device.type != "cpu" or cores == 1:
        return min(cores, STARTED), "torch's own number, at most one a core"
    keep_freed_memory(device)  # as training does
    with torch.random.fork_rng(devices=[]):
        one = step_seconds(recipe, 1)
        many = step_seconds(recipe, cores, most=2 * STEPS * one)
    times = f"a step takes {1000 * one:.1f} ms with 1, {1000 * many:.1f} ms with {cores}"
    return (1 if one <= many else cores), times


def _threads_of(folder: Path | None, recipe: Recipe, seed: int) -> int | None:
    """Of the run in `folder`, if it is of this recipe and seed."""
    try:
        record = load_history(folder).record
    except MnistLibError:
        return None  # none is there
    same = record.get("seed") == seed and not differences(record.get("recipe"), vars(recipe))
    last = (record.get("resumed") or [record])[-1]  # where it went on
    return last.get("threads") if same else None


def step_seconds(recipe: Recipe, threads: int, most: float = math.inf) -> float:
    """Of a step of training, the median of some, with so many threads.

    Stopped when they have taken `most` seconds together: a single one can take 0.8.
    """
    torch.set_num_threads(threads)
    net = make_net(recipe)
    size, generator, times = recipe.batch_size, torch.Generator().manual_seed(0), []
    images = torch.randint(256, (size, 28, 28), generator=generator, dtype=torch.uint8)
    moves, labels = random_affine(size, recipe, generator), torch.arange(size) % 10
    while len(times) < STEPS and sum(times) < most:
        start = time.perf_counter()
        inputs = augment(images, moves, recipe, crop_of(net))
        F.cross_entropy(net(inputs), labels).backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)
