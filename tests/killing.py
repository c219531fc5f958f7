"""Train, kill, go on, compare: `python -m tests.killing FOLDER RECIPE KILLS [writing]`.

For test_resume.py. Every run is a forked process that is really killed, at KILLS random moments;
with `writing`, also at every point in the writing of its files where it hurts. Printed last: how
many were killed, and how many runs ended like the one that nobody disturbed, to the bit.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import mnist_lib
from mnist_lib.data import load_sample

EPOCHS = 3
RECIPES = {name: mnist_lib.get_recipe(name, epochs=EPOCHS) for name in mnist_lib.RECIPES}
RECIPES["adam"] = mnist_lib.get_recipe("logged", epochs=EPOCHS, optimizer="adam")


def train(folder: Path, recipe: mnist_lib.Recipe, data: mnist_lib.MNIST) -> None:
    """One whole run, or the rest of it; what it came to is left beside the folder."""
    mnist_lib.set_seed(0)
    net = mnist_lib.make_net(recipe)
    history = mnist_lib.train(net, data, recipe, verbose=False, folder=folder)
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.numpy())
    epochs = [
        dataclasses.replace(epoch, seconds=0.0, batches_per_second=0.0).test_line()
        + f" {epoch.test_loss!r} {epoch.last_batch_loss!r}"
        for epoch in history
    ]
    assert mnist_lib.load_history(folder) == history
    result = {"epochs": epochs, "record": history.record, "weights": digest.hexdigest()}
    folder.with_suffix(".json").write_text(json.dumps(result))


def in_child(work, after: float | None = None, point: int = 0) -> bool:
    """Run `work` in a process to be killed after seconds or at a point; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            if point:
                die_at(point)
            work()
        except BaseException as error:
            print(f"the run failed: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit("a run failed")
    return False


def die_at(point: int) -> None:
    """Have this process killed at so many-th of the points in writing files where it hurts."""
    points = itertools.count(1)

    def around(function, half=None):
        def wounded(*words, **named):
            if next(points) == point:
                if half:
                    half(*words)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*words, **named)

        return wounded

    write = Path.write_bytes
    Path.write_bytes = around(
        write, lambda path, content: write(path, content[: len(content) // 2])
    )
    for name in ("fsync", "replace", "rmdir"):
        setattr(os, name, around(getattr(os, name)))
    Path.unlink = around(Path.unlink)


def main(folder: Path, recipe: mnist_lib.Recipe, kills: int, in_writing: bool) -> None:
    data = load_sample().take(2 * recipe.batch_size)
    data = dataclasses.replace(
        data, test_images=data.test_images[:100], test_labels=data.test_labels[:100]
    )
    mnist_lib.training.learning_rates(recipe, 2)  # what torch imports late, once for all children
    start = time.perf_counter()
    in_child(partial(train, folder / "undisturbed", recipe, data))
    whole = time.perf_counter() - start  # a good part of it is the start
    expected = (folder / "undisturbed.json").read_text()

    random.seed(recipe.name)
    runs, at_random, writing = [], 0, 0
    while at_random < kills:
        run = folder / f"random-{len(runs)}"
        while in_child(partial(train, run, recipe, data), random.uniform(0, whole)):
            at_random += 1
        runs.append(run)
    for point in itertools.count(1) if in_writing else ():
        run = folder / f"writing-{point}"
        if not in_child(partial(train, run, recipe, data), point=point):
            break
        writing += 1
        in_child(partial(train, run, recipe, data))
        runs.append(run)
    equal = sum(run.with_suffix(".json").read_text() == expected for run in runs)
    print(
        json.dumps({"at_random": at_random, "writing": writing, "runs": len(runs), "equal": equal})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), RECIPES[sys.argv[2]], int(sys.argv[3]), "writing" in sys.argv)
