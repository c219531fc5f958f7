"""How fast is training? `python -m mnist_lib.benchmark`: the assignment's way beside ours.

The assignment's way reads images through DataLoader, ToTensor and Normalize into the net as
the assignment writes it, with the optimiser's default loop; ours is `mnist_lib.train`'s. They take
turns, so that a slower minute of the machine slows both, each time in a new process, since
the allocator's settings that ours makes (`keep_freed_memory`) would speed up the other too.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from .data import FULL_TRAINING_SET, MEAN, MNIST, STD, load_mnist
from .device import environment
from .errors import MnistLibError
from .net import Net
from .recipe import Recipe, get_recipe
from .training import train


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
    """Seconds of one epoch of `mnist_lib.train`, without its test."""
    return train(Net(), data, recipe, verbose=False).final.seconds


def _warmed(way, data: MNIST, recipe: Recipe, threads: int) -> float:
    torch.set_num_threads(threads)
    way(data.take(20 * recipe.batch_size), recipe)
    return way(data, recipe)


def main() -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.benchmark", description=__doc__)
    parser.add_argument("--images", type=int, default=9_600, help="training images a round")
    parser.add_argument("--rounds", type=int, default=5, help="the median is taken")
    parser.add_argument("--threads", type=int, help="of the CPU, by default all cores")
    parser.add_argument("--data-dir", help="where MNIST is; see load_mnist")
    words = parser.parse_args()
    if words.rounds < 1 or (words.threads is not None and words.threads < 1):
        parser.error("--rounds and --threads take whole numbers of at least 1")
    if words.threads:
        torch.set_num_threads(words.threads)
    recipe = get_recipe("logged", epochs=1)
    try:
        data = load_mnist(words.data_dir)
        part = data.take(words.images)
    except MnistLibError as error:
        sys.exit(f"{parser.prog}: {error}")
    ways = {"the assignment's way": assignments_way, "mnist_lib.train": our_way}
    times = {name: [] for name in ways}
    spawn = multiprocessing.get_context("spawn")
    for _ in range(words.rounds):
        for name, way in ways.items():
            with ProcessPoolExecutor(1, spawn) as process:
                run = process.submit(_warmed, way, part, recipe, torch.get_num_threads())
                times[name].append(run.result())
    print(environment(torch.device("cpu")))
    print(f"{data}; {words.rounds} rounds of {words.images:,} images, batch {recipe.batch_size}")
    print(f"{'':22}batches/s  s/epoch of {FULL_TRAINING_SET:,}")
    batches = -(-words.images // recipe.batch_size)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:22}{batches / seconds:9.1f}{seconds * FULL_TRAINING_SET / words.images:9.1f}")
    slow, fast = medians.values()
    print(f"ratio {slow / fast:.2f}")


if __name__ == "__main__":
    main()
