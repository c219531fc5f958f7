"""How fast is training? `python -m mnist_lib.benchmark`: the assignment's way beside ours.

The assignment's way reads images through DataLoader, ToTensor and Normalize into the net as
the assignment writes it, with the optimiser's default loop; ours is `mnist_lib.train`'s. They take
turns, so that a slower minute of the machine slows both, each time in a new process, since
the allocator's settings that ours makes (`keep_freed_memory`) would speed up the other too.

The share of the peak is that of the machine's own float32 matrix multiplication with as many
threads: the floating-point operations of the net's forward and backward pass over both times.
Last, the recipes: all their epochs, over as many images in every round, scaled to MNIST; and what a
checkpoint costs, which every epoch of a run with a folder leaves.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from .checkpoint import Checkpoints
from .data import FULL_TRAINING_SET, MEAN, MNIST, STD, load_mnist, normalize
from .device import environment, peak_memory
from .errors import MnistLibError
from .net import Net, make_net
from .processes import pool
from .recipe import RECIPES, Recipe, get_recipe
from .table import lay_out
from .training import make_parts, set_seed, train

AGREEMENT_STEPS = 20  # from the same weights, over which both nets' losses are compared


class AssignmentNet(Net):
    """The same layers, with the assignment's own forward: ReLU before pooling."""

    def forward(self, x):
        x = self.pool1(F.relu(self.BatchNorm2(self.conv2(F.relu(self.BatchNorm1(self.conv1(x)))))))
        x = self.pool2(F.relu(self.BatchNorm4(self.conv4(F.relu(self.BatchNorm3(self.conv3(x)))))))
        x = F.relu(self.conv6(F.relu(self.BatchNorm5(self.conv5(x)))))
        x = F.adaptive_avg_pool2d(self.conv7(x), (1, 1)).view(-1, 10)
        return F.log_softmax(x, dim=1)


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
    """Seconds of one epoch over DataLoader, per image transforms and the assignment's forward."""
    net = AssignmentNet()
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
    """Seconds of `mnist_lib.train`, without its tests."""
    history = train(make_net(recipe), data, recipe, verbose=False)
    return sum(epoch.seconds for epoch in history)


def compiled_way(data: MNIST, recipe: Recipe) -> float:
    """The same with torch.compile, which has compiled before."""
    return train(make_net(recipe), data, recipe, verbose=False, compiled=True).final.seconds


WAYS = {
    "the assignment's way": assignments_way,
    "mnist_lib.train": our_way,
    "mnist_lib.train, compiled": compiled_way,
}


@dataclass(frozen=True)
class Measurement:
    """All epochs of a recipe: how long, and the most memory their process has taken."""

    seconds: float
    peak_memory: int  # bytes; 0 where the system does not tell


def measure(way: str, data: MNIST, recipe: Recipe, threads: int) -> Measurement:
    """All epochs of the recipe, after a warm-up on a few batches, the last as small as can come."""
    torch.set_num_threads(threads)
    few = 4 * recipe.batch_size + len(data.train_images) % recipe.batch_size
    WAYS[way](data.take(min(few, len(data.train_images))), recipe)
    return Measurement(WAYS[way](data, recipe), peak_memory())


def matmul_peak(threads: int, size: int = 2048, rounds: int = 15) -> float:
    """Floating-point operations a second of a float32 matrix multiplication, the median."""
    torch.set_num_threads(threads)
    matrix = torch.randn(size, size)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def operations() -> int:
    """Floating-point operations of one image's training step: forward and backward pass."""
    net = Net()
    with FlopCounterMode(display=False) as counter:
        F.nll_loss(net(torch.randn(2, 1, 28, 28)), torch.tensor([0, 1])).backward()
    return counter.get_total_flops() // 2


def agreement(data: MNIST, recipe: Recipe) -> float:
    """The largest relative difference of loss between both nets over the first steps.

    In float64, where rounding is small enough to show that nothing else differs.
    """
    losses = []
    for make in (AssignmentNet, Net):
        set_seed(0)
        net = make().double()
        optimizer = torch.optim.SGD(
            net.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum
        )
        losses.append([])
        for step in range(AGREEMENT_STEPS):
            batch = torch.arange(step * recipe.batch_size, (step + 1) * recipe.batch_size)
            batch %= len(data.train_images)
            optimizer.zero_grad()
            images = normalize(data.train_images[batch]).double()
            loss = F.nll_loss(net(images), data.train_labels[batch])
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    return max(abs(ours - theirs) / theirs for theirs, ours in zip(*losses, strict=True))


def checkpoint_seconds(data: MNIST, recipe: Recipe, rounds: int = 21) -> float:
    """What keeping an epoch takes, in the working directory's file system; the median."""
    net = make_net(recipe)
    few = data.take(recipe.batch_size)
    history = train(net, few, dataclasses.replace(recipe, epochs=1), verbose=False)
    parts = make_parts(net, recipe, len(data.train_images))
    net(normalize(few.train_images)).sum().backward()
    parts["optimizer"].step()  # from here on it has a state
    times = []
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=".") as folder:
        words = (Path(folder), history.record, parts, torch.Generator(), torch.device("cpu"))
        with Checkpoints(*words) as checkpoints:
            for _ in range(rounds):
                start = time.perf_counter()
                checkpoints.save(history)
                times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(measured: dict, peaks: dict[int, float], images: int) -> str:
    """The medians of `measured`: (threads, batch, way) to a list of Measurements."""
    rows = [
        ("threads", "batch", "", "batches/s", "s/epoch", "ratio", "of peak", "memory"),
    ]
    flop = operations()
    for (threads, batch, way), runs in measured.items():
        seconds = statistics.median(run.seconds for run in runs)
        theirs = statistics.median(
            run.seconds for run in measured[threads, batch, "the assignment's way"]
        )
        rows.append(
            (
                str(threads),
                str(batch),
                way,
                f"{-(-images // batch) / seconds:.1f}",
                f"{seconds * FULL_TRAINING_SET / images:.1f}",
                f"{theirs / seconds:.2f}",
                f"{flop * images / seconds / peaks[threads]:.0%}",
                f"{max(run.peak_memory for run in runs) / 1e6:.0f} MB",
            )
        )
    return "\n".join(lay_out(rows, left=3))


def _whole(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"takes whole numbers of at least 1, not {text!r}")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.benchmark", description=__doc__)
    parser.add_argument("--images", type=_whole, default=9_600, help="training images a round")
    parser.add_argument("--rounds", type=_whole, default=5, help="the median is taken")
    parser.add_argument("--threads", type=_whole, nargs="+", default=[1, 2], help="of the CPU")
    parser.add_argument("--batches", type=_whole, nargs="+", default=[32, 128, 512], help="sizes")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too: takes longer")
    parser.add_argument("--data-dir", help="where MNIST is; see load_mnist")
    words = parser.parse_args()
    if not os.access(".", os.W_OK):
        sys.exit(f"{parser.prog}: {Path.cwd()} cannot be written, and checkpoints are timed there")
    recipes = {size: get_recipe("logged", epochs=1, batch_size=size) for size in words.batches}
    try:
        data = load_mnist(words.data_dir)
        part = data.take(words.images)
        for recipe in (*recipes.values(), *RECIPES.values()):
            part.check_batch_size(recipe.batch_size)
    except MnistLibError as error:
        sys.exit(f"{parser.prog}: {error}")
    ways = list(WAYS) if words.compiled else list(WAYS)[:2]
    cells = list(itertools.product(words.threads, words.batches, ways))
    measured = {cell: [] for cell in cells}
    peaks = {threads: [] for threads in words.threads}
    whole = {name: [] for name in RECIPES}  # seconds of all the recipe's epochs
    for _ in range(words.rounds):
        for threads in words.threads:
            with pool(1) as process:
                peaks[threads].append(process.submit(matmul_peak, threads).result())
        for threads, size, way in cells:
            with pool(1) as process:
                run = process.submit(measure, way, part, recipes[size], threads)
                measured[threads, size, way].append(run.result())
        for name, recipe in RECIPES.items():
            with pool(1) as process:
                run = process.submit(measure, "mnist_lib.train", part, recipe, words.threads[-1])
                whole[name].append(run.result().seconds)
    medians = {threads: statistics.median(values) for threads, values in peaks.items()}
    print(environment(torch.device("cpu")))
    print(f"{data}; the median of {words.rounds} rounds of {words.images:,} images\n")
    print(table(measured, medians, words.images))
    for threads, peak in medians.items():
        print(
            f"\nfloat32 matrix multiplication, {threads} threads: {peak / 1e9:.0f} GFLOP/s", end=""
        )
    scale = FULL_TRAINING_SET / words.images
    seconds = {name: scale * statistics.median(runs) for name, runs in whole.items()}
    for name, recipe in RECIPES.items():
        with pool(1) as process:
            kept = process.submit(checkpoint_seconds, part, recipe).result()
        print(
            f"\nrecipe {name}, {words.threads[-1]} threads: {seconds[name]:.1f} s for its "
            f"{recipe.epochs} epochs; a checkpoint takes {1000 * kept:.1f} ms, "
            f"{kept * recipe.epochs / seconds[name]:.2%} of an epoch",
            end="",
        )
    times = seconds["logged"] / seconds["fast"]
    print(f"\nlogged trains {times:.1f} times as long as fast", end="")
    difference = agreement(part, recipes[words.batches[0]])
    print(f"\nlosses of the two ways' first {AGREEMENT_STEPS} steps agree within {difference:.1e}")


if __name__ == "__main__":
    main()
