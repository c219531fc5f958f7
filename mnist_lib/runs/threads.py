"""How many CPU threads a run uses: a pinned number, its earlier one, or whichever is faster."""

import os
import statistics
import time
from pathlib import Path

import joblib
import torch
import torch.nn.functional as F

from ..augment import augment, random_affine
from ..base.errors import MnistLibError, as_seed, check_whole, is_whole
from ..base.memory import keep_freed_memory
from ..evaluation import checked_output, crop_of
from ..history import load_history
from ..recipe import Recipe, differences, make_net

STEPS = 11  # of a trial; the first warms up, the median of the others counts
STARTED = torch.get_num_threads()  # torch's own number, or OMP_NUM_THREADS


def choose_threads(
    threads: int | None, recipe: Recipe, seed: int | None, folder: Path | None, device: torch.device
) -> tuple[int, str]:
    """Set torch's number of threads in this process for a run; returns the number and the reason.

    `threads` or the environment variable OMP_NUM_THREADS pins it. A run that continues in `folder`
    keeps its number if there are enough cores, since its bits depend on it. Otherwise, on the CPU,
    training steps are timed with one thread and with one per core: threads wait for each other by
    spinning, so on busy cores more can be slower.
    """
    check_threads(threads)
    cores = joblib.cpu_count()  # of this process: by its affinity and its container's share
    seed = as_seed(seed)
    if threads is not None:
        chosen, why = int(threads), "as given"
    elif os.environ.get("OMP_NUM_THREADS"):
        chosen, why = STARTED, "set by OMP_NUM_THREADS"
    elif is_whole(before := _threads_before(folder, recipe, seed)) and 1 <= before <= cores:
        chosen, why = before, "as this run had before"
    elif device.type != "cpu" or cores == 1:
        chosen, why = min(cores, STARTED), "torch's own number, at most one a core"
    else:
        keep_freed_memory(device)  # as training does
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            one = step_seconds(recipe, 1)
            many = step_seconds(recipe, cores, most=2 * STEPS * one)
        chosen = 1 if one <= many else cores
        why = f"a step takes {1000 * one:.1f} ms with 1, {1000 * many:.1f} ms with {cores}"
    torch.set_num_threads(chosen)
    return chosen, why


def check_threads(threads: int | None) -> None:
    """Raise ParameterError unless `threads` is None or a whole number from 1 to 256."""
    if threads is not None:
        check_whole("threads", threads, most=256)


def _threads_before(folder: Path | None, recipe: Recipe, seed: int) -> int | None:
    """The number of threads of the run in `folder`, if it has this recipe and seed."""
    try:
        run = load_history(folder)
    except MnistLibError:
        return None
    own = run.record.get("recipe")
    same = run.record.get("seed") == seed and not differences(own, vars(recipe))
    return run.environments[-1].get("threads") if same else None


def step_seconds(recipe: Recipe, threads: int, most: float = torch.inf) -> float:
    """Median seconds of a step, without its update, on `threads` threads; ends after `most`."""
    torch.set_num_threads(threads)
    net = make_net(recipe)
    size, generator, times = recipe.batch_size, torch.Generator().manual_seed(0), []
    images = torch.randint(256, (size, 28, 28), generator=generator, dtype=torch.uint8)
    moves, labels = random_affine(size, recipe, generator), torch.arange(size) % 10
    while len(times) < STEPS and sum(times) < most:
        start = time.perf_counter()
        inputs = augment(images, moves, recipe, crop_of(net))
        loss = F.cross_entropy(checked_output(net, inputs, "in training "), labels)
        if loss.requires_grad:  # else `train` says why it cannot learn
            loss.backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)
