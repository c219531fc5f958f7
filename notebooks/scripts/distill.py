"""Patient distillation (Beyer et al. 2021): a small net learns the answers of wide ones.

    python notebooks/scripts/distill.py teachers KEEP     two wide nets for each group of folds
    python notebooks/scripts/distill.py views KEEP        fixed views of all training images
    python notebooks/scripts/distill.py answers KEEP      the teachers' answers to each view
    python notebooks/scripts/distill.py students KEEP FILE --seeds 0 1 2 --validation
    python notebooks/scripts/distill.py students KEEP FILE --seeds 0 1 2 3 4 5 6 7 8 9

The last line makes the recorded ten. KEEP is a folder for what all students share, 1 GB: take an
empty one after a change to teachers or views. A stopped step goes on where it was; views and
students begin anew. Several processes can share a step: `--part 0` and so on, or other seeds.

A teacher leaves out four of the twelve folds of `MNIST.hold_out`. With --validation, the student of
a fold asks the two teachers that have never seen it; on all 60,000 images it asks all six. It never
sees a label: its loss is the divergence of its answers from the mean of their log-probabilities.
Its run becomes a line of FILE, like a study's, with what is special to it under "distilled"; its
weights are in KEEP.
"""

import argparse
import itertools
import os
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from mnist_lib import save_run, train
from mnist_lib.augment import augment, denormalize, normalize, random_affine
from mnist_lib.base.errors import DataError, check_whole, exit_in_a_sentence
from mnist_lib.base.files import append_line, remove, write_file
from mnist_lib.base.memory import keep_freed_memory, peak_memory, return_freed_memory
from mnist_lib.data import FOLDS, MNIST, load_mnist
from mnist_lib.evaluation import evaluate, infer
from mnist_lib.history import History
from mnist_lib.log import Progress
from mnist_lib.net import set_seed
from mnist_lib.nets import FoldedNet
from mnist_lib.recipe import Recipe, get_recipe, make_net
from mnist_lib.runs.trial import make_record
from mnist_lib.study.studies import runs_by_key
from mnist_lib.training import WeightAverage, make_optimizer, make_scheduler

GROUPS = 3  # of four folds each, a teacher without each group
WIDE = "learning_rate=0.1 weight_decay=2e-4 rotation=10 shift=1 scale=0.1"
VIEWS = 15  # passes over all images
# How students are trained and, for all nets alike, how the views are moved.
STUDENT = get_recipe("small", "epochs=60 averaging=0.999")
TEMPERATURE = 2.0  # of both answers


def folded() -> nn.Module:
    """A teacher of 290,000 parameters, yet only three times as slow as the assignment's net."""
    return FoldedNet(widths=(64, 64, 96, 96, 128))


def deep() -> nn.Module:
    """A teacher of 147,000 parameters, six times as slow: seven convolutions, one pooling."""
    layers, before = [], 1
    for number, after in enumerate((32, 32, 48, 48, 64, 64, 64), 1):
        layers.append(nn.Conv2d(before, after, 3, padding=int(number <= 2), bias=False))
        layers += [nn.MaxPool2d(2)] if number == 2 else []
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, 10)
    return nn.Sequential(*layers, *end).to(memory_format=torch.channels_last)


TEACHERS = {
    folded: get_recipe("small", f"epochs=20 {WIDE}"),
    deep: get_recipe("small", f"epochs=14 {WIDE}"),
}


def student_recipe(net: str) -> Recipe:
    """The recipe of the students of this net; the assignment's looks at the middle 24 pixels."""
    return replace(STUDENT, name="distilled", net=net, crop=24 if net == "assignment" else 28)


def save(value, path: Path) -> None:
    """Write `value` whole or not at all."""
    write_file(path, lambda to: torch.save(value, to))


def load(path: Path):
    """What `save` wrote. DataError if an earlier step is missing."""
    if not path.exists():
        steps = "teachers, views, answers, students"
        raise DataError(f"{path} is missing: take the steps in their order, {steps}")
    return torch.load(path)


def fold_of(data: MNIST) -> torch.Tensor:
    """The fold of each training image, (N,), as `MNIST.hold_out` deals them."""
    order = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(0))
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)) % FOLDS)


def without(data: MNIST, group: int) -> MNIST:
    """What a group's teachers train on; the folds that they leave out are its test images."""
    out = fold_of(data) * GROUPS // FOLDS == group
    images, labels = data.train_images, data.train_labels
    return MNIST(images[~out], labels[~out], images[out], labels[out], source="validation")


def teachers(keep: Path, part: list[int]) -> None:
    """Train the teachers of the groups in `part`.

    KEEP/teachers.csv gets how each does, and then both, on the folds that they leave out.
    """
    table = keep / "teachers.csv"
    add(table, "teacher,group,images,correct,seconds\n")
    data = load_mnist(source="mnist")
    for group in part:
        left, said = without(data, group), []
        for teacher, recipe in TEACHERS.items():
            name = f"{teacher.__name__}-{group}"
            set_seed(group)
            net = teacher()
            history = train(net, left, recipe, group, folder=keep / name)
            print(f"{name}: {history.final.score}", flush=True)
            save(net.state_dict(), keep / f"{name}.pt")
            said.append(infer(net, left.test_images))
            time = f"{history.seconds:.0f}"
            add(table, row(teacher.__name__, group, left, said[-1], time))
        add(table, row("both", group, left, torch.stack(said).mean(0)))


def add(table: Path, line: str) -> None:
    """Append a line to a table, unless an earlier call has added its teacher and group."""
    lines = table.read_text().splitlines() if table.exists() else []
    if not any(line.split(",")[:2] == other.split(",")[:2] for other in lines):
        append_line(table, line)


def row(name: str, group: int, left: MNIST, said: torch.Tensor, seconds: str = "") -> str:
    """A line of teachers.csv: `said` are answers (N, 10) on the folds that the group leaves out."""
    correct = int((said.argmax(1) == left.test_labels).sum())
    return f"{name},{group},{len(said)},{correct},{seconds}\n"


def views(keep: Path, part: list[int]) -> None:
    """Write a view of each training image, moved, as bytes; for each pass in `part`."""
    images = load_mnist(source="mnist").train_images
    for number in part:
        moves = random_affine(len(images), STUDENT, torch.Generator().manual_seed(number))
        steps = zip(images.split(1000), moves.split(1000), strict=True)
        seen = [denormalize(augment(*step, STUDENT)) for step in steps]
        save(torch.cat(seen), keep / f"views-{number}.pt")  # (60000, 28, 28)
        print(f"views {number}", flush=True)


def answers(keep: Path, part: list[int]) -> None:
    """Write the log-probabilities of the teachers in `part` for each view, in half precision."""
    for teacher, group in itertools.product(TEACHERS, part):
        net = teacher()
        net.load_state_dict(load(keep / f"{teacher.__name__}-{group}.pt"))
        for number in range(VIEWS):
            path = keep / f"answers-{teacher.__name__}-{group}-{number}.pt"
            if not path.exists():
                seen = load(keep / f"views-{number}.pt")
                save(infer(net, seen).half(), path)  # (60000, 10)
                print(path.stem, flush=True)


def student_folder(keep: Path, history: History) -> Path:
    """The folder of a student's run, with its weights."""
    net, seed = history.recipe.net, history.record["seed"]
    return keep / f"student-{net}-{history.source}-{seed}"


def students(keep: Path, file: Path, recipe: Recipe, seeds: list[int], validation: bool) -> None:
    """Train a student for each seed that the file lacks."""
    source = "validation" if validation else "mnist"
    for seed in seeds:
        if (recipe, seed, source) not in runs_by_key(file):
            net, history = distill(keep, recipe, seed, validation)
            save_run(student_folder(keep, history), history, net)
            append_line(file, history.to_json())
            print(f"{recipe.net}, seed {seed}: {history.final.score}", flush=True)


def distill(keep: Path, recipe: Recipe, seed: int, validation: bool) -> tuple[nn.Module, History]:
    """A student and its run: as `train`, but with the views and answers in `keep`."""
    data, fold = load_mnist(source="mnist"), seed % FOLDS
    images = torch.arange(len(data.train_images))
    groups = list(range(GROUPS))
    if validation:
        data, images = data.hold_out(fold), images[fold_of(data) != fold]
        groups = [fold * GROUPS // FOLDS]
    set_seed(seed)
    net = make_net(recipe)
    record = make_record(net, data, recipe, seed)
    keep_freed_memory(torch.device("cpu"))
    optimizer = make_optimizer(net, recipe)
    steps = recipe.epoch_steps(len(images))
    scheduler = make_scheduler(optimizer, recipe, sum(steps))
    average = WeightAverage(net, recipe.averaging)
    generator, epochs = torch.Generator().manual_seed(seed), []
    for epoch in range(1, recipe.epochs + 1):
        net.train()
        with Progress(epoch, recipe, steps[epoch - 1], verbose=False) as progress:
            order = torch.randperm(len(images), generator=generator)
            seen, asked = views_and_answers(keep, (epoch - 1) % VIEWS, groups, images)
            for batch in order.split(recipe.batch_size):
                optimizer.zero_grad()
                output = net(normalize(seen[batch]))
                loss = divergence(output, asked[batch])
                loss.backward()
                optimizer.step()
                scheduler.step()
                average.update()
                progress.step(loss, output, data.train_labels[batch])
        test_loss, correct = evaluate(average.net, data)
        epochs.append(progress.report(test_loss, correct, len(data.test_images)))
        return_freed_memory()
    special = {"views": VIEWS, "temperature": TEMPERATURE, "teachers": names(groups)}
    record |= {"memory": peak_memory(), "distilled": special}
    return average.net, History(tuple(epochs), data.source, record)


def names(groups: list[int]) -> list[str]:
    """The teachers of these groups."""
    return [f"{teacher.__name__}-{group}" for teacher in TEACHERS for group in groups]


def views_and_answers(
    keep: Path, number: int, groups: list[int], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The views of `images` in one pass, uint8, and the mean log-probabilities of the teachers."""
    files = [keep / f"answers-{name}-{number}.pt" for name in names(groups)]
    given = [load(file)[images].float() for file in files]
    return load(keep / f"views-{number}.pt")[images], torch.stack(given).mean(0)


def divergence(output: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of log-probabilities (N, 10) from a teacher's, softened.

    Both are divided by the temperature; the loss is scaled by its square, so that gradients keep
    their size (Hinton, Vinyals and Dean 2015).
    """
    output, asked = (F.log_softmax(a / TEMPERATURE, dim=1) for a in (output, asked))
    return TEMPERATURE**2 * F.kl_div(output, asked, reduction="batchmean", log_target=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("teachers", "views", "answers", "students"))
    parser.add_argument("keep", type=Path)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--part", type=int, nargs="+", help="numbers of groups, or of passes")
    parser.add_argument("--net", default="assignment", help="of the students")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--validation", action="store_true", help="on the fold of each seed")
    given = parser.parse_args()
    if given.step == "students" and given.file is None:
        parser.error("students needs a FILE for their runs")
    if given.part is not None and given.step == "students":
        parser.error("students has no parts")
    torch.set_num_threads(1)
    with exit_in_a_sentence("distill"):
        # Fail now. Not check_writable: its lock would sweep what a sibling is writing there.
        probe = given.keep / f".writable-{os.getpid()}"
        write_file(probe, Path.touch)
        remove(probe)
        if given.step == "students":
            recipe = student_recipe(given.net)
            students(given.keep, given.file, recipe, given.seeds, given.validation)
        else:
            step, count = STEPS[given.step]
            for part in given.part or ():
                check_whole("--part", part, least=0, most=count - 1)
            step(given.keep, range(count) if given.part is None else given.part)


STEPS = {"teachers": (teachers, GROUPS), "views": (views, VIEWS), "answers": (answers, GROUPS)}

if __name__ == "__main__":
    main()
