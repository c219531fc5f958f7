"""How fast is training? `python notebooks/scripts/benchmark.py`: the assignment's way beside ours.

The assignment's way reads images through DataLoader, ToTensor and Normalize into the net as the
assignment writes it, with torch's default optimiser; ours is `train`. They take turns, so that a
slower minute of the machine slows both, each time in a new process, since the allocator's settings
that ours makes (`keep_freed_memory`) would speed up the other too. Then come the recipes, all their
epochs, over as many images in every round.

Each row is a median over the rounds: machine, device, way, threads, batch and the seconds of an
epoch, or of all the recipe's epochs, scaled to MNIST's 60,000 images. With --busy the rows are of
whole runs of `fast`, their tests included, beside that many busy processes, with the threads that
torch starts and those of `choose_threads`. With --published, whole trainings take turns in one
process with the fastest published one. With --file, the rows are added to it as JSON, one a line.
"""

import argparse
import contextlib
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset

from mnist_lib.augment import MEAN, STD, normalize
from mnist_lib.base.errors import exit_in_a_sentence
from mnist_lib.base.files import append_line
from mnist_lib.base.machine import environment
from mnist_lib.base.tables import Table
from mnist_lib.data import FULL_TRAINING_SET, MNIST, load_mnist
from mnist_lib.evaluation import evaluate
from mnist_lib.net import Net, set_seed
from mnist_lib.recipe import RECIPES, Recipe, get_recipe, make_net
from mnist_lib.runs.threads import choose_threads
from mnist_lib.study.processes import own_processes
from mnist_lib.training import train


class Transformed(Dataset):
    """What torchvision's MNIST gives: a PIL image per index, through the transforms."""

    def __init__(self, data: MNIST):
        from PIL import Image
        from torchvision import transforms

        self.data, self.image = data, Image.fromarray
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
        )

    def __len__(self):
        return len(self.data.train_images)

    def __getitem__(self, index):
        image = self.image(self.data.train_images[index].numpy(), mode="L")
        return self.transform(image), int(self.data.train_labels[index])


def assignments_way(data: MNIST, recipe: Recipe) -> float:
    """Seconds of one epoch through DataLoader, per-image transforms and the assignment's net."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    loader = DataLoader(Transformed(data), batch_size=recipe.batch_size, shuffle=True)
    start = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.nll_loss(net(images), labels)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def our_way(data: MNIST, recipe: Recipe) -> float:
    """Seconds of all epochs of `train`, without its tests."""
    return train(make_net(recipe), data, recipe, verbose=False).seconds


WAYS = {"assignment": assignments_way, "train": our_way}


def measure(way: str, data: MNIST, recipe: Recipe, threads: int) -> float:
    """Seconds of a way, after a warm-up on a few batches, the last as small as can come."""
    torch.set_num_threads(threads)
    few = 4 * recipe.batch_size + len(data.train_images) % recipe.batch_size
    WAYS[way](data.take(min(few, len(data.train_images))), recipe)
    return WAYS[way](data, recipe)


def benchmark(
    data: MNIST, images: int, rounds: int, threads: list[int], batches: list[int]
) -> list[dict]:
    """The measured rows. Raises ParameterError for too many images or too large a batch."""
    part = data.take(images)
    epochs = {size: get_recipe("assignment", epochs=1, batch_size=size) for size in batches}
    jobs = [
        (way, way, epochs[size], count)
        for count, size, way in itertools.product(threads, batches, WAYS)
    ]
    jobs += [(f"recipe {name}", "train", recipe, threads[-1]) for name, recipe in RECIPES.items()]
    for _, _, recipe, _ in jobs:
        part.check_batch_size(recipe.batch_size)
    times = [[] for _ in jobs]
    with own_processes() as call:
        for _ in range(rounds):
            for (_, way, recipe, count), seconds in zip(jobs, times, strict=True):
                seconds.append(call(measure, way, part, recipe, count))
    made = environment(torch.device("cpu"))
    return [
        made
        | {"way": name, "threads": count, "batch": recipe.batch_size, "rounds": rounds}
        | {"images": images, "seconds": statistics.median(seconds) * FULL_TRAINING_SET / images}
        for (name, _, recipe, count), seconds in zip(jobs, times, strict=True)
    ]


def whole_run(data: MNIST, recipe: Recipe, way: str) -> tuple[float, int]:
    """Seconds of a run with all its tests, and its threads: torch's own, or chosen for it."""
    start = time.perf_counter()
    if way == "threads chosen":
        choose_threads(None, recipe, 0, None, torch.device("cpu"))
    train(make_net(recipe), data, recipe, verbose=False)
    return time.perf_counter() - start, torch.get_num_threads()


def beside_busy_processes(data: MNIST, rounds: int, counts: list[int]) -> list[dict]:
    """The rows of --busy: of whole runs beside so many busy processes."""
    recipe, made, measured = RECIPES["fast"], environment(torch.device("cpu")), {}
    jobs = list(itertools.product(counts, ("threads of torch", "threads chosen")))
    with own_processes() as call:
        for _, (busy, way) in itertools.product(range(rounds), jobs):
            with contextlib.ExitStack() as others:
                for _ in range(busy):
                    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                    others.callback(loop.kill)
                measured.setdefault((busy, way), []).append(call(whole_run, data, recipe, way))
    sizes = {"batch": recipe.batch_size, "rounds": rounds, "images": len(data.train_images)}
    return [
        made
        | {"way": f"whole fast, {way}", "busy": busy, "threads": runs[-1][1]}
        | sizes
        | {"seconds": statistics.median(seconds for seconds, _ in runs)}
        for (busy, way), runs in measured.items()
    ]


def published_way(data: MNIST, seed: int, epochs: int) -> tuple[float, int]:
    """Seconds of training, and the test images right, of the fastest published training.

    Net and settings are those of 8_Final_00s76.ipynb in github.com/tuomaso/train_mnist_fast: one
    epoch gives 99.04% in 0.76 s on a GPU. The images are normalized once, and never shuffled.
    """
    set_seed(seed)
    inputs, labels, size = normalize(data.train_images), data.train_labels, 256
    net = nn.Sequential(
        *(nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10), nn.LogSoftmax(dim=1)),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.7, 0.9))
    steps = epochs * -(-len(labels) // size)
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=steps, cycle_momentum=False)
    start = time.perf_counter()
    for _ in range(epochs):
        for images, targets in zip(inputs.split(size), labels.split(size), strict=True):
            optimizer.zero_grad()
            F.nll_loss(net(images), targets).backward()
            optimizer.step()
            schedule.step()
    return time.perf_counter() - start, evaluate(net, data)[1]


def our_recipe(data: MNIST, seed: int, recipe: Recipe) -> tuple[float, int]:
    """Seconds of training, and the test images right at its last epoch."""
    set_seed(seed)
    history = train(make_net(recipe), data, recipe, seed=seed, verbose=False)
    return history.seconds, history.final.correct


def beside_the_published(data: MNIST, rounds: int, threads: int) -> list[dict]:
    """The rows of --published: a round is a seed, and all ways take turns in this process."""
    torch.set_num_threads(threads)
    ways = {f"published, epochs {n}": partial(published_way, epochs=n) for n in (1, 2)}
    ours = ("faster", "fast", "steady")
    ways |= {f"whole {name}": partial(our_recipe, recipe=RECIPES[name]) for name in ours}
    measured = {way: [] for way in ways}
    ways["whole faster"](data.take(128), 0)  # a warm-up
    for seed, (way, call) in itertools.product(range(rounds), ways.items()):
        measured[way].append(call(data, seed))
    made, images = environment(torch.device("cpu")), len(data.test_images)
    return [
        made
        | {"way": way, "rounds": rounds, "seconds": statistics.median(s for s, _ in runs)}
        | {"accuracy": 100 * statistics.fmean(right for _, right in runs) / images}
        for way, runs in measured.items()
    ]


def table(rows: list[dict]) -> str:
    """Rows as text; an epoch's with its ratio to the assignment's way."""
    theirs = {(r["threads"], r["batch"]): r["seconds"] for r in rows if r["way"] == "assignment"}
    lines = []
    for row in rows:
        line = {name: str(row[name]) for name in ("threads", "batch", "way")}
        ratio = theirs[row["threads"], row["batch"]] / row["seconds"] if row["way"] in WAYS else 0
        line |= {"seconds": f"{row['seconds']:.1f}", "ratio": f"{ratio:.2f}" if ratio else ""}
        lines.append(line)
    return str(Table(lines, left=3))


def _whole(text: str, least: int = 1) -> int:
    if not text.isdecimal() or not least <= int(text) <= 10**6:
        limits = f"must be whole numbers from {least} to 10**6"
        raise argparse.ArgumentTypeError(f"{limits}, got {text!r}")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__)
    parser.add_argument("--images", type=_whole, default=9_600, help="training images a round")
    parser.add_argument("--rounds", type=_whole, default=5, help="the median is taken")
    parser.add_argument("--threads", type=_whole, nargs="+", default=[1, 2], help="of the CPU")
    parser.add_argument("--batches", type=_whole, nargs="+", default=[32, 128, 512], help="sizes")
    parser.add_argument(
        "--busy",
        type=functools.partial(_whole, least=0),
        nargs="+",
        help="time whole runs beside this many busy processes: 0 1 2",
    )
    parser.add_argument("--published", action="store_true", help="by turns with the fastest known")
    parser.add_argument("--file", type=Path, help="a .jsonl that the rows are added to")
    parser.add_argument("--data-dir", help="where MNIST is; see load_mnist")
    args = parser.parse_args()
    with exit_in_a_sentence(parser.prog, "stopped; no rows were written"):
        data = load_mnist(args.data_dir)
        if args.file:
            append_line(args.file, "")  # before the hours, not after them
        if args.busy:
            rows = beside_busy_processes(data, args.rounds, args.busy)
            for row in rows:
                print(f"{row['busy']} busy, {row['way']}, {row['threads']}: {row['seconds']:.1f} s")
        elif args.published:
            rows = beside_the_published(data, args.rounds, args.threads[-1])
            for row in rows:
                print(f"{row['way']}: {row['seconds']:.1f} s, {row['accuracy']:.2f}%")
        else:
            rows = benchmark(data, args.images, args.rounds, args.threads, args.batches)
            print(f"{data}; the median of {args.rounds} rounds of {args.images:,} images\n")
            print(table(rows))
        for row in rows if args.file else ():
            append_line(args.file, json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
