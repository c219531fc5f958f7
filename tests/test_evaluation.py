"""A net's answers are counted correctly, whatever form its scores have."""

import copy
import dataclasses

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import mnist_lib
from mnist_lib import (
    Net,
    ParameterError,
    Rescaled,
    RunError,
    evaluate,
    get_recipe,
    infer,
    predict,
    train,
)
from mnist_lib.augment import Views
from mnist_lib.evaluation import scale_of, unwrapped

ASSIGNMENT = get_recipe("assignment")


def log_softmax(x):
    return x.log_softmax(dim=1)


class Own(nn.Module):
    """A net of one layer and `end`, in whose place there may be `in_training` in training."""

    def __init__(self, end=log_softmax, in_training=None, classes=10):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(784, classes)
        self.ends = {True: in_training or end, False: end}

    def forward(self, x):
        return self.ends[self.training](self.linear(x.flatten(1)))


@pytest.fixture(scope="module")
def part(sample):
    return sample.take(200)


def test_evaluate_counts_as_by_hand_and_leaves_the_net(part):
    few = {name: getattr(part, name)[:990] for name in ("test_images", "test_labels")}
    part = dataclasses.replace(part, **few)  # a partial last batch counts by its size
    net = Net()
    mean = net.BatchNorm1.running_mean.clone()
    loss, correct = evaluate(net, part)
    assert net.training
    assert torch.equal(net.BatchNorm1.running_mean, mean)
    net.eval()
    assert (evaluate(net, part), net.training) == ((loss, correct), False)
    with torch.no_grad():
        output = net(mnist_lib.normalize(part.test_images)).double()
    labels = part.test_labels.tolist()
    by_hand = -sum(output[i, label].item() for i, label in enumerate(labels)) / 990
    assert loss == pytest.approx(by_hand, rel=1e-5)
    assert correct == sum(output[i].argmax().item() == label for i, label in enumerate(labels))


def test_no_images_one_and_numpys_are_taken_but_no_loader(part):
    net = Net()
    expected = infer(net, part.test_images[:3])
    torch.testing.assert_close(infer(net, part.test_images[:3].numpy()), expected)
    torch.testing.assert_close(infer(net, part.test_images[1]), expected[1:2])
    assert infer(net, part.test_images[:0]).shape == (0, 10)
    with pytest.raises(ParameterError, match="images must be uint8"):
        infer(net, part.test_images / 255)
    for flat in (part.test_images.view(-1, 784).numpy(), part.test_images[..., None]):
        with pytest.raises(ParameterError, match=r"\.reshape\(-1, 28, 28\)$"):
            infer(net, flat)
    with pytest.raises(ParameterError, match=r"by \(255 \* images\)\.round\(\)\.byte\(\)\.reshape"):
        infer(net, part.test_images.view(-1, 784) / 255)
    with pytest.raises(ParameterError, match=r"data must be an MNIST, .*DataLoader"):
        evaluate(net, torch.utils.data.DataLoader([]))


def test_a_net_may_return_logits(part):
    """The losses and the run are the same as with log_softmax in the net."""
    recipe = get_recipe("fast", epochs=2)
    theirs, ours = Own(lambda x: x), Own()
    assert evaluate(theirs, part) == evaluate(ours, part)
    runs = [train(net, part, recipe, verbose=False) for net in (theirs, ours)]
    first, second = ([(e.test_loss, e.last_batch_loss) for e in run] for run in runs)
    assert first == second
    assert infer(theirs, part.test_images).exp().sum(dim=1).tolist() == pytest.approx([1] * 1000)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Own(lambda x: x.softmax(dim=1)), "returns probabilities: return log_softmax"),
        (Own(lambda x: x[..., None]), r"\(125, 10\), .*, got float32, \(125, 10, 1\): see"),
        (Own(lambda x: x.view(-1, 10), classes=90), r"\(125, 10\), .*, got float32, \(1125, 10\)"),
        (Own(classes=9), r"\(125, 10\), .* got float32, \(125, 9\)"),
        (Own(lambda x: (x, x)), r"\(125, 10\), .* nothing else, got a tuple: see the end"),
        (Own(lambda x: x.argmax(dim=1)), r"\(125, 10\), .* got int64, \(125,\)"),
        (Own(lambda x: x[:, 10]), r"cannot take images of shape \(125, 1, 28, 28\): index 10"),
        (nn.Conv2d(3, 10, 3), r"cannot take images of shape \(125, 1, 28, 28\): Giv"),
        (Own, r"net is the class Own: make one, Own\(\)"),
        (nn.Flatten(), "net must be a torch.nn.Module with parameters, got Flatten"),
        (print, "net must be a torch.nn.Module with parameters, got <built-in"),
    ],
)
def test_other_nets_are_refused_before_they_are_trained(part, net, message):
    for call in (
        lambda: infer(net, part.test_images),
        lambda: evaluate(net, part),
        lambda: train(net, part, ASSIGNMENT),
    ):
        with pytest.raises(ParameterError, match=message):
            call()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Own(lambda x: log_softmax(x * torch.nan)), "returns nan"),
        (Own(lambda x: x.log_softmax(dim=0)), "over the images, dim=0"),
        (Own(lambda x: x.softmax(dim=0)), "over the images, dim=0"),
        (Own(log_softmax, lambda x: 2 * x), "the same in both"),
        (Own(lambda x: 2 * x, log_softmax), "the same in both"),
        (Own(log_softmax, lambda x: x.softmax(dim=1)), "returns probabilities"),
        (Own(log_softmax, lambda x: (x, x)), "in training return a tensor .* got a tuple"),
        (Own(log_softmax, lambda x: x.view(125, 10)), "cannot take images of shape"),
        (Own(lambda x: x.detach()), "depends on no parameter that is trained"),
        (Own().requires_grad_(False), "depends on no parameter that is trained"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "lazy layers"),
    ],
)
def test_a_net_whose_answers_cannot_be_trained_on_is_refused(part, net, message):
    with pytest.raises(ParameterError, match=message):
        train(net, part, ASSIGNMENT)


def test_a_last_batch_of_one_is_tried_too(part):
    with pytest.raises(ParameterError, match=r"in training return a tensor \(1, 10\)"):
        train(Own(torch.squeeze), part.take(33), ASSIGNMENT)


def test_a_net_that_keeps_an_activation_is_averaged(part):
    net = Own()
    net.register_forward_hook(lambda module, inputs, output: setattr(module, "kept", output))
    assert len(train(net, part.take(64), get_recipe("fast", epochs=1), verbose=False)) == 1


def test_the_trial_leaves_no_trace(part):
    """The trial before training changes no statistics and draws no random numbers."""
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(784, 10), nn.BatchNorm1d(10))
    seen = []

    def look(net, inputs):
        if net.training:
            seen.append([torch.get_rng_state(), *copy.deepcopy(net.state_dict()).values()])

    net.register_forward_pre_hook(look)
    train(net, part, get_recipe("assignment", epochs=1), verbose=False)
    trial, step, *_ = seen
    assert all(map(torch.equal, trial, step))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0, 1), (0, 1 / 255), (1, -1)])
def test_a_net_of_another_scale_gets_its_own(part, mean, std):
    net, images = Own(), part.test_images[:8]
    with torch.no_grad():
        expected = net((images.unsqueeze(1) / 255 - mean) / std)
    rescaled = Rescaled(net, mean, std)
    torch.testing.assert_close(infer(rescaled, images), expected, atol=1e-3, rtol=1e-3)
    for whole in (rescaled, Views(rescaled, get_recipe("views")), torch.compile(rescaled)):
        assert (unwrapped(whole), scale_of(whole)) == (net, (mean, std))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Own(), (0.5,), 0.5), r"mean must be a number, .* got \(0.5,\)"),
        ((Own(), 0.5, 0), "std must be a number other than 0, got 0"),
        ((Rescaled(Own(), 0.5, 0.5), 0, 1), "net must be a torch.nn.Module, and not in Rescaled"),
        ((Own, 0.5, 0.5), "net must be a torch.nn.Module, .* got <class"),
    ],
)
def test_scales_that_are_none(arguments, message):
    with pytest.raises(ParameterError, match=message):
        Rescaled(*arguments)


@pytest.mark.parametrize("call", [infer, lambda net, images: predict(images[0], net)])
def test_modes_and_random_numbers_are_as_before(part, call):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), Own(lambda x: F.dropout(x, 0.5)))
    net.train()[1].eval()
    state = torch.get_rng_state()
    call(net, part.test_images[:10])
    assert [module.training for module in net.modules()] == [True, True, False, True, True]
    mnist_lib.pretrained("steady")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("end", [torch.sigmoid, lambda x: x.sigmoid().relu()])
def test_scores_of_a_sigmoid_are_refused_but_can_be_trained(part, capsys, end):
    recipe = get_recipe("fast", epochs=2)
    epochs = train(Own(end), part, recipe, verbose=False)
    assert "lie in 0..1 and do not add up to 1" in capsys.readouterr().err
    assert len(epochs) == 2
    for call in (
        lambda: infer(Own(end), part.test_images),
        lambda: evaluate(Own(end), part),
        lambda: predict(part.test_images[0], Own(end)),
    ):
        with pytest.raises(ParameterError, match="as after a sigmoid: return the scores before"):
            call()
    assert evaluate(Own(end), part, bounded=True) == evaluate(
        Own(lambda x: end(x).log_softmax(1)), part
    )


def test_half_precision_is_summed_in_single(part):
    loss, correct = evaluate(Own(), part)
    half = Own(lambda x: log_softmax(x).half())
    assert evaluate(half, part) == (pytest.approx(loss, abs=1e-3), correct)


def test_another_net_of_the_same_shapes_does_not_go_on(tmp_path, part):
    recipe = get_recipe("assignment", epochs=1, batch_size=10)
    mnist_lib.set_seed(0)
    train(Net(), part, recipe, folder=tmp_path, verbose=False)
    before = (tmp_path / "history.json").read_bytes()
    other = Net()
    other.register_forward_pre_hook(lambda net, inputs: -inputs[0])
    with pytest.raises(RunError, match=r"the run of another net: .* name another folder"):
        train(other, part, recipe, folder=tmp_path, verbose=False)
    assert (tmp_path / "history.json").read_bytes() == before
