"""Training and testing: reproducible to the bit, counted exactly, printed so that it reads back."""

import contextlib
import dataclasses
import io
import itertools
import re
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F

import mnist_lib
from mnist_lib import ParameterError, RunError, get_recipe, parse_log, training

RECIPE = get_recipe("logged", epochs=2, batch_size=64)


def run(data, seed=0, recipe=RECIPE, verbose=False):
    mnist_lib.set_seed(seed)
    net = mnist_lib.make_net(recipe)
    return net, mnist_lib.train(net, data, recipe, seed=seed, verbose=verbose)


def without_times(history):
    return [dataclasses.replace(epoch, seconds=0.0, batches_per_second=0.0) for epoch in history]


@pytest.fixture(scope="module")
def part(sample):
    return sample.take(500)


@pytest.fixture(scope="module")
def trained(part):
    return run(part)


def test_same_seed_same_bits(part, trained):
    net, history = run(part)
    assert without_times(history) == without_times(trained[1])
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, trained[0].state_dict()[name]), name


def test_another_seed_another_run(part, trained):
    assert without_times(run(part, seed=1)[1]) != without_times(trained[1])


def test_verbose_changes_nothing(part, trained, capsys):
    assert without_times(run(part, verbose=True)[1]) == without_times(trained[1])


def test_loop_is_a_plain_loop_over_the_literal_net(part):
    """The same epoch, restated without any of the library's means."""
    from .test_net import AssignmentNet

    # A small step: a large one lets differences in rounding grow.
    recipe = get_recipe("logged", epochs=1, batch_size=64, learning_rate=0.01)
    torch.manual_seed(0)
    net = AssignmentNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    images = (part.train_images[:, None] / 255 - 0.1307) / 0.3081
    for start in range(0, 500, 64):
        batch = order[start : start + 64]
        optimizer.zero_grad()
        loss = F.nll_loss(net(images[batch]), part.train_labels[batch])
        loss.backward()
        optimizer.step()
    ours, history = run(part, recipe=recipe)
    assert history.final.last_batch_loss == pytest.approx(loss.item(), rel=1e-3)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)


def test_record_tells_what_was_done(part, trained):
    record = trained[1].record
    assert record["recipe"] == dataclasses.asdict(RECIPE)
    assert (record["seed"], record["train_images"], record["parameters"]) == (0, 500, 13_322)
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["threads"] == torch.get_num_threads()
    assert trained[1].source == "sample"


def test_epochs_count_all_images(trained):
    _, history = trained
    assert [epoch.epoch for epoch in history] == [1, 2]
    assert {epoch.images for epoch in history} == {1000}
    assert {epoch.batches for epoch in history} == {8}, (
        "500 images in batches of 64, the last of 52"
    )
    epoch = history.final
    assert epoch.batches_per_second == pytest.approx(8 / epoch.seconds)


def test_test_counts_as_by_hand(sample, trained):
    net, history = trained
    loss, correct = mnist_lib.test(net, sample)
    assert (loss, correct) == (history.final.test_loss, history.final.correct)
    net.eval()
    with torch.no_grad():
        output = net(mnist_lib.normalize(sample.test_images)).double()
    labels = sample.test_labels.tolist()
    by_hand = -sum(output[i, label].item() for i, label in enumerate(labels)) / 1000
    assert loss == pytest.approx(by_hand, rel=1e-5)
    assert correct == sum(output[i].argmax().item() == label for i, label in enumerate(labels))


def test_partial_last_test_batch_counts_by_its_size(sample, trained, monkeypatch):
    net, history = trained
    monkeypatch.setattr(training, "TEST_BATCH", 333)
    loss, correct = mnist_lib.test(net, sample)
    assert correct == history.final.correct
    assert loss == pytest.approx(history.final.test_loss, rel=1e-5)


def test_testing_leaves_the_mode_and_the_statistics(sample, trained):
    net, _ = trained
    net.train()
    before = net.BatchNorm1.running_mean.clone()
    mnist_lib.test(net, sample)
    assert net.training
    assert torch.equal(net.BatchNorm1.running_mean, before)


def test_it_learns(sample):
    _, history = run(sample, recipe=get_recipe("logged", epochs=2))
    assert history.final.accuracy > 85
    assert history.final.test_loss < history.epochs[0].test_loss


def test_adam_is_another_optimiser(part, trained):
    recipe = get_recipe("logged", epochs=2, batch_size=64, optimizer="adam", learning_rate=0.001)
    assert without_times(run(part, recipe=recipe)[1]) != without_times(trained[1])


EVERYTHING = get_recipe(
    "fast",
    epochs=2,
    batch_size=64,
    rotation=10,
    shift=1,
    scale=0.1,
    first=0.9,
    hardest=0.5,
    label_smoothing=0.1,
)


def test_a_recipe_with_everything_is_reproducible(part):
    first, again = (run(part, recipe=EVERYTHING) for _ in range(2))
    assert without_times(first[1]) == without_times(again[1])
    for name, tensor in first[0].state_dict().items():
        assert torch.equal(tensor, again[0].state_dict()[name]), name


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": 0.0},
        {"crop": 26},
        {"nesterov": False},
        {"schedule": "constant"},
        {"warm_up": 0.5},
        {"weight_decay": 0.1},
        {"averaging": 0.0},
        {"first": 1.0},
        {"epochs": 2, "hardest": 1.0},
        {"label_smoothing": 0.0},
    ],
)
def test_every_field_has_an_effect(part, change):
    one = dataclasses.replace(EVERYTHING, epochs=change.get("epochs", 1))
    changed = dataclasses.replace(one, **change)
    # The net is told of the crop by make_net; without it the pictures alone are cropped.
    assert without_times(run(part, recipe=changed)[1]) != without_times(run(part, recipe=one)[1])


def test_the_average_is_tested_and_kept(part):
    net, history = run(part, recipe=EVERYTHING)
    assert mnist_lib.test(net, part) == (history.final.test_loss, history.final.correct)
    raw, _ = run(part, recipe=dataclasses.replace(EVERYTHING, averaging=0.0))
    assert not torch.equal(net.conv7.weight, raw.conv7.weight)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_torchs(smoothing):
    recipe = get_recipe("fast", label_smoothing=smoothing)
    scores = torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 9, 9, 4])
    loss = training.training_loss(scores.log_softmax(dim=1), labels, recipe)
    torch.testing.assert_close(loss, F.cross_entropy(scores, labels, label_smoothing=smoothing))


def test_one_cycle_by_hand():
    recipe = dataclasses.replace(EVERYTHING, learning_rate=1.0, warm_up=0.3)
    rates = training.learning_rates(recipe, 100)
    assert len(rates) == 100
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[29], rel=0.02) == pytest.approx(1.0, rel=0.02)
    assert rates[99] == pytest.approx(1 / 72, rel=0.1), "one step above nothing"
    rising, falling = rates[:29], rates[30:]
    for part_of in (rising, falling):
        steps = [b - a for a, b in itertools.pairwise(part_of)]
        assert steps == pytest.approx([steps[0]] * len(steps)), "straight lines"


def test_constant_rate_stays():
    assert training.learning_rates(get_recipe("logged"), 50) == [0.05] * 50


def test_compiled_is_the_same_to_rounding(part, monkeypatch):
    """With a backend that traces the net but needs no compiler."""
    compile_net, traced = torch.compile, []

    def eager(graph, inputs):
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda net: compile_net(net, backend=eager))
    recipe = get_recipe("logged", epochs=1, batch_size=64, learning_rate=0.01)
    torch.manual_seed(0)
    net = mnist_lib.Net()
    history = mnist_lib.train(net, part, recipe, verbose=False, compiled=True)
    assert traced
    assert history.record["compiled"] is True
    other, _ = run(part, recipe=recipe)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)


def test_what_it_prints_reads_back(part):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        _, history = run(part, verbose=True)
    printed = parse_log(out.getvalue())
    assert [epoch.correct for epoch in printed] == [epoch.correct for epoch in history]
    for read, made in zip(printed, history, strict=True):
        assert read.last_batch_loss == made.last_batch_loss
        assert read.batches == made.batches
        assert read.test_loss == pytest.approx(made.test_loss, abs=5e-5)
        assert read.seconds <= made.seconds + 1
    assert parse_log(history.log()).final.correct == history.final.correct


def test_what_a_slow_last_batch_prints_reads_back(part, monkeypatch):
    """The bar is never shown full with the loss of an earlier batch."""
    calls = itertools.count(1)

    def slow(*args):
        if next(calls) == 8:
            time.sleep(1.1)
        return augment(*args)

    augment = training.augment
    monkeypatch.setattr(training, "augment", slow)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        _, history = run(part, recipe=dataclasses.replace(RECIPE, epochs=1), verbose=True)
    assert history.final.batches == 8
    assert parse_log(out.getvalue()).final.last_batch_loss == history.final.last_batch_loss
    for shown in re.split("[\r\n]", out.getvalue()):
        if "8/8" in shown:
            assert "batch_id=7" in shown


def test_a_stopped_run_leaves_no_open_bar(part, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.HardExamples, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        run(part, verbose=True)
    assert not list(training.tqdm._instances)


def test_only_test_lines_go_to_stdout(part, capsys):
    _, history = run(part, verbose=True)
    assert capsys.readouterr().out.splitlines() == [epoch.test_line() for epoch in history]


def test_batch_larger_than_the_data(part):
    message = "batch_size is 501, but there are only 500 training images"
    with pytest.raises(ParameterError, match=message):
        run(part, recipe=get_recipe("logged", batch_size=501))


@pytest.mark.parametrize("seed", ["a", -1, 1.0, True, None])
def test_seed_is_a_whole_number(part, seed):
    with pytest.raises(ParameterError, match="seed takes a whole number from 0"):
        mnist_lib.train(mnist_lib.Net(), part, RECIPE, seed)


def test_a_recipe_is_more_than_its_name(part):
    for call in (
        lambda: mnist_lib.make_net("fast"),
        lambda: mnist_lib.train(mnist_lib.Net(), part, "fast"),
        lambda: mnist_lib.run_folder(None, "fast", 0, part),
    ):
        with pytest.raises(ParameterError, match=r"recipe takes a Recipe, .*, not 'fast'"):
            call()


def test_net_and_recipe_look_at_the_same_part(part):
    message = "net looks at the middle 28 pixels of the images, recipe 'fast' at 24: make the net"
    with pytest.raises(ParameterError, match=message):
        mnist_lib.train(mnist_lib.Net(), part, get_recipe("fast"))


@pytest.mark.parametrize("name", ["logged", "fast", "sprint"])
def test_smallest_crop_and_a_last_batch_of_one(part, name):
    recipe = get_recipe(name, crop=20, epochs=1, batch_size=499)
    assert len(run(part, recipe=recipe)[1]) == 1


def test_average_is_taken_after_the_step(part):
    """One step: TensorFlow's schedule keeps 2/11 of the start."""
    recipe = get_recipe("logged", epochs=1, batch_size=500)
    mnist_lib.set_seed(0)
    start = mnist_lib.make_net(recipe).state_dict()
    plain, _ = run(part, recipe=recipe)
    averaged, _ = run(part, recipe=dataclasses.replace(recipe, averaging=0.99))
    for name, tensor in averaged.state_dict().items():
        if tensor.is_floating_point():
            expected = start[name] * 2 / 11 + plain.state_dict()[name] * 9 / 11
            torch.testing.assert_close(tensor, expected, msg=name)


def test_adam_takes_the_recipes_numbers():
    recipe = get_recipe("logged", optimizer="adam", learning_rate=0.003, weight_decay=0.1)
    (group,) = training.make_optimizer(mnist_lib.Net(), recipe).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.003, 0.1)


def test_seconds_are_those_of_training(part, monkeypatch):
    def slow(*args):
        time.sleep(2)
        return test(*args)

    test = training.test
    monkeypatch.setattr(training, "test", slow)
    start = time.perf_counter()
    _, history = run(part, recipe=dataclasses.replace(RECIPE, epochs=1))
    assert history.final.seconds < time.perf_counter() - start - 2


def test_every_step_tells_its_losses(part, monkeypatch):
    seen, update = [], training.HardExamples.update

    def watched(self, numbers, output, labels):
        seen.extend(numbers.tolist())
        update(self, numbers, output, labels)

    monkeypatch.setattr(training.HardExamples, "update", watched)
    recipe = get_recipe("fast", epochs=2, first=1.0, hardest=0.25)
    run(part, recipe=recipe)
    assert sorted(seen[:500]) == list(range(500))
    assert len(seen) == 500 + 125


def test_a_compiler_that_fails_is_one_sentence(part, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler\nin 80 lines")

    compile_net = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compile_net(net, backend=broken))
    with pytest.raises(RunError, match=r"^torch\.compile failed \(.*\): set compiled to False$"):
        mnist_lib.train(mnist_lib.Net(), part, RECIPE, verbose=False, compiled=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9])
def test_one_cycle_of_few_steps(steps):
    """A warm-up of one step, of less, or of none."""
    for warm_up in (0.0, 0.1, 0.2, 0.3, 0.5):
        recipe = get_recipe("sprint", warm_up=warm_up)
        assert max(training.learning_rates(recipe, steps)) <= recipe.learning_rate * 1.000001


def test_compiled_is_a_choice_of_two(part):
    with pytest.raises(ParameterError, match="compiled takes True or False, not 'yes'"):
        mnist_lib.train(mnist_lib.Net(), part, RECIPE, compiled="yes")


def test_divergence_is_named(part):
    with pytest.raises(RunError) as caught:
        run(part, recipe=get_recipe("logged", batch_size=64, learning_rate=1e30))
    assert str(caught.value) == (
        "training diverged in epoch 1, batch_id 1, of recipe 'logged': the loss is nan, the "
        "learning rate there 1e+30; nothing is kept; try a learning_rate below 1e+30"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory():
    """Of a process that trains and tests on as many images as MNIST has: at most 1 GB."""
    code = (
        "import torch, mnist_lib\n"
        "images = torch.full((70_000, 28, 28), 7, dtype=torch.uint8)\n"
        "labels = torch.arange(70_000) % 10\n"
        "data = mnist_lib.MNIST(images[:60_000], labels[:60_000], images[60_000:],"
        " labels[60_000:], 'mnist').take(3200)\n"
        "mnist_lib.train(mnist_lib.Net(), data, mnist_lib.get_recipe('logged', epochs=1))\n"
        # Not getrusage: its maximum is handed down from the parent process.
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout.splitlines()[-1]) * 1024 < 1e9


def test_import_is_quick_and_takes_no_matplotlib():
    """At most 0.1 s over `import torch`, and nothing heavy by the way."""
    code = (
        "import torch, sys, time; start = time.perf_counter(); import mnist_lib;"
        "print(time.perf_counter() - start);"
        "print([m for m in ('matplotlib', 'torchvision', 'mlxtend', 'safetensors')"
        " if m in sys.modules])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(3)
    ]
    assert runs[0][1] == "[]"
    assert min(float(seconds) for seconds, _ in runs) < 0.1
