"""Runs that are stopped where it hurts, and the few images that they are trained on.

`python -m tests.runs.killing FOLDER` trains, kills, goes on and compares. Every run is a forked
process that is really killed: with each recipe at random moments; with `fast`, which keeps most,
also at every point in writing where it hurts. Printed last: how many were killed, and how many runs
ended like the undisturbed one, to the bit.
"""

import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from tqdm import tqdm

import mnist_lib
from mnist_lib.base import download
from mnist_lib.data import load_sample
from tests.conftest import die_with, idx, write

KILLS = {"fast": 20, "assignment": 10, "adam": 10}  # at random
ATTEMPTS = 200  # at them; a quiet machine needs 30
# Of each way to train one: the other recipes keep and draw nothing that these do not.
RECIPES = {name: mnist_lib.get_recipe(name, epochs=3) for name in ("fast", "assignment")}
RECIPES["adam"] = mnist_lib.get_recipe("assignment", epochs=3, optimizer="adam")
FORK = multiprocessing.get_context("fork")


class FewImages(os.PathLike):
    """A folder of 240 images, which every process that asks for its path then takes for MNIST.

    `deeds` says, by seed, what a process does when it asks in order to make the run of that seed.
    The process that made the folder does nothing.
    """

    def __init__(self, folder: Path, deeds=None):
        self.folder, self.deeds, self.owner = folder, deeds or {}, os.getpid()
        images = torch.arange(240 * 784).sin().abs().mul(255).byte().view(240, 28, 28)
        labels = torch.arange(240, dtype=torch.uint8) % 10
        parts = map(idx, (images, labels, images[:100], labels[:100]))
        files = dict(zip(download.FILES, parts, strict=True))
        self.md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
        write(folder, files)

    def __fspath__(self):
        download.FILES.update(self.md5)
        (self.folder / f"asked-by-{os.getpid()}").touch()
        if os.getpid() != self.owner:
            self.deeds.get(torch.initial_seed(), bool)()
        return str(self.folder)

    def processes(self) -> int:
        """How many processes have asked, beside the one that made the folder."""
        return len(set(self.folder.glob("asked-by-*")) - {self.folder / f"asked-by-{self.owner}"})


def once_there(folder: Path, pattern: str, deed):
    """From now on, any net does the deed when it is called, if `folder` has such a path."""

    def look(*_):
        if any(folder.glob(pattern)):
            deed()

    return register_module_forward_pre_hook(look)


def interrupt():
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def die():
    """Have this process killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def few(data, count):
    """So many training images, and 100 test images: not the sample, whose epochs take all."""
    tested = {name: getattr(data, name)[:100] for name in ("test_images", "test_labels")}
    return dataclasses.replace(data.take(count), source="few", **tested)


def run(data, folder, recipe, seed=0, verbose=False, net=mnist_lib.make_net, **options):
    """A run or the rest of it: its epochs without their seconds, its record and its weights."""
    mnist_lib.set_seed(seed)
    net = net(recipe)
    history = mnist_lib.train(net, data, recipe, seed, verbose, folder, **options)
    assert folder is None or mnist_lib.load_history(folder) == history
    epochs = [vars(dataclasses.replace(epoch, seconds=0.0)) for epoch in history]
    return epochs, history.record, {k: v.tolist() for k, v in net.state_dict().items()}


def killed(work, after=None, point=0):
    """Whether `work`, in a process of its own, was killed: after seconds, or at a point."""

    def begin(parent):
        die_with(parent)
        # Its own is a semaphore that all children share: held by one that is killed, it stops all.
        tqdm.set_lock(threading.RLock())
        die_at(point)
        work()

    child = FORK.Process(target=begin, args=(os.getpid(),))
    child.start()
    child.join(after)
    child.kill()  # unless it has ended
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), "a run failed"
    return child.exitcode != 0


def die_at(point):
    """Have this process killed at so many-th of the points in writing files where it hurts."""
    points = itertools.count(1)

    def around(function, before=lambda *args: None):
        def wounded(*args, **options):
            if next(points) == point:
                before(*args)
                die()
            return function(*args, **options)

        return wounded

    write = Path.write_bytes
    Path.write_bytes = around(write, lambda path, data: write(path, data[: len(data) // 2]))
    for owner, name in ((os, "fsync"), (os, "replace"), (os, "rmdir"), (Path, "unlink")):
        setattr(owner, name, around(getattr(owner, name)))


def kill_runs(sample, folder):
    """Kill a recipe's runs and let them go on: how many were killed, and ended as they should."""
    recipe = RECIPES[folder.name]
    data = few(sample, 2 * recipe.batch_size)
    if not torch.accelerator.is_available():  # with one, autograd cannot be forked
        # What is imported and prepared on first use, for all children.
        run(data, folder.with_name(f"{folder.name}-first"), recipe)

    def train(name, **death):
        keep = (folder / f"{name}.json").write_text
        return killed(lambda: keep(json.dumps(run(data, folder / name, recipe))), **death)

    start = time.perf_counter()
    train("undisturbed")
    whole = time.perf_counter() - start
    random.seed(folder.name)
    kills, runs, ended = {"at_random": 0, "writing": 0}, 0, False
    while runs < 2 or kills["at_random"] < KILLS[folder.name] or not ended:
        assert kills["at_random"] + runs < ATTEMPTS, f"{folder.name}: {kills}, {runs} runs ended"
        ended = not train(f"run-{runs}", after=random.uniform(0, whole))
        kills["at_random"] += not ended
        runs += ended
        whole *= 0.5 if ended else 1.2  # as the machine's pace changes: neither all killed nor none
    while folder.name == "fast" and train(f"run-{runs}", point=kills["writing"] + 1):
        kills["writing"] += 1
        train(f"run-{runs}")
        runs += 1
    results = [path.read_text() for path in folder.glob("*.json")]
    equal = results.count((folder / "undisturbed.json").read_text())
    return kills | {"runs": sum(path.is_dir() for path in folder.iterdir()), "equal": equal}


if __name__ == "__main__":
    folders = [Path(sys.argv[1], name) for name in RECIPES]
    with ProcessPoolExecutor(2, FORK, die_with, (os.getpid(),)) as pool:
        counts = pool.map(kill_runs, itertools.repeat(load_sample()), folders)
    print(json.dumps(dict(zip(RECIPES, counts, strict=True))))
