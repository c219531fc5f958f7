"""What a net answers: counted as by hand, whatever form its scores have."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import mnist_lib
from mnist_lib import (
    FastNet,
    Net,
    ParameterError,
    RunError,
    evaluate,
    evaluation,
    get_recipe,
    infer,
    train,
)


class Own(nn.Module):
    """A net of one layer, whose scores go through `end`."""

    def __init__(self, end=lambda x: x.log_softmax(dim=1), classes=10):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.end = nn.Linear(784, classes), end

    def forward(self, x):
        return self.end(self.linear(x.flatten(1)))


@pytest.fixture(scope="module")
def part(sample):
    return sample.take(200)


def test_evaluate_counts_as_by_hand_and_leaves_the_net(part, monkeypatch):
    net = Net()
    mean = net.BatchNorm1.running_mean.clone()
    loss, correct = evaluate(net, part)
    assert net.training
    assert torch.equal(net.BatchNorm1.running_mean, mean)
    net.eval()
    with torch.no_grad():
        output = net(mnist_lib.normalize(part.test_images)).double()
    labels = part.test_labels.tolist()
    by_hand = -sum(output[i, label].item() for i, label in enumerate(labels)) / 1000
    assert loss == pytest.approx(by_hand, rel=1e-5)
    assert correct == sum(output[i].argmax().item() == label for i, label in enumerate(labels))
    monkeypatch.setattr(evaluation, "TEST_BATCH", 333)  # a partial last batch counts by its size
    assert evaluate(net, part) == (pytest.approx(loss, rel=1e-5), correct)


def test_one_image_and_numpys_are_taken(part):
    net = Net()
    expected = infer(net, part.test_images[:3])
    torch.testing.assert_close(infer(net, part.test_images[:3].numpy()), expected)
    torch.testing.assert_close(infer(net, part.test_images[1]), expected[1:2])
    with pytest.raises(ParameterError, match="images must be uint8"):
        infer(net, part.test_images / 255)


def test_a_net_may_return_logits(part):
    """The same losses, the same run, as with log_softmax in the net."""
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
        (
            Own(lambda x: x[..., None, None]),
            r"\(125, 10\), .*, got float32, \(125, 10, 1, 1\): see",
        ),
        (Own(lambda x: x.view(-1, 10), classes=90), r"\(125, 10\), .*, got float32, \(1125, 10\)"),
        (Own(classes=9), r"\(125, 10\), .* got float32, \(125, 9\)"),
        (Own(lambda x: (x, x)), r"\(125, 10\), .* got a tuple: return the scores alone"),
        (Own(lambda x: x.argmax(dim=1)), r"\(125, 10\), .* got int64, \(125,\)"),
        (
            nn.Sequential(nn.Conv2d(3, 10, 3)),
            r"cannot take images of shape \(125, 1, 28, 28\): Giv",
        ),
        (Own, r"net is the class Own: make one, Own\(\)"),
        (nn.Flatten(), "net must be a torch.nn.Module with parameters, got Flatten"),
        (print, "net must be a torch.nn.Module with parameters, got <built-in"),
    ],
)
def test_other_nets_are_refused_before_they_are_trained(part, net, message):
    for call in (
        lambda: infer(net, part.test_images),
        lambda: evaluate(net, part),
        lambda: train(net, part, get_recipe("assignment"), verbose=False),
    ):
        with pytest.raises(ParameterError, match=message):
            call()


def test_a_loader_is_no_data(part):
    loader = torch.utils.data.DataLoader([])
    for call in (
        lambda: evaluate(Net(), loader),
        lambda: train(Net(), loader, get_recipe("assignment")),
        lambda: mnist_lib.run_folder(None, get_recipe("assignment"), 0, loader),
    ):
        with pytest.raises(ParameterError, match=r"data must be an MNIST, .*DataLoader"):
            call()


class Moody(Own):
    """Another in training."""

    def __init__(self, training, evaluating):
        super().__init__()
        self.ways = {True: training, False: evaluating}

    def forward(self, x):
        return self.ways[self.training](super().forward(x))


def log_softmax(x):
    return F.log_softmax(x, dim=1)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Own(lambda x: F.log_softmax(x * torch.nan, dim=1)), "returns nan"),
        (Own(lambda x: F.log_softmax(x, dim=0)), "over the images, dim=0"),
        (Own(lambda x: F.softmax(x, dim=0)), "over the images, dim=0"),
        (Moody(lambda x: 2 * x, log_softmax), "the same in both"),
        (Moody(log_softmax, lambda x: 2 * x), "the same in both"),
        (Moody(lambda x: F.softmax(x, dim=1), log_softmax), "returns probabilities"),
        (Moody(lambda x: (x, x), log_softmax), "in training return a tensor .* got a tuple"),
        (Moody(lambda x: x.view(125, 10), log_softmax), "cannot take images of shape"),
        (Own(lambda x: x.detach()), "depends on no parameter that is trained"),
        (Own().requires_grad_(False), "depends on no parameter that is trained"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "lazy layers"),
    ],
)
def test_a_net_whose_answers_cannot_be_trained_on_is_refused(part, net, message):
    with pytest.raises(ParameterError, match=message):
        train(net, part, get_recipe("assignment"), verbose=False)


def test_the_trial_leaves_no_trace(part):
    """Of the batch that a net is tried on before it is trained."""
    net = FastNet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    evaluation.check_in_training(net, part, get_recipe("assignment"))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_half_precision_is_summed_in_single(part):
    net = Own(lambda x: F.log_softmax(x, dim=1))
    loss, correct = evaluate(net, part)
    half = Own(lambda x: F.log_softmax(x, dim=1).half())
    half.load_state_dict(net.state_dict())
    assert evaluate(half, part) == (pytest.approx(loss, abs=1e-3), correct)


class Negative(Net):
    """Weights of the same shapes, and another net."""

    def forward(self, x):
        return super().forward(-x)


def test_another_net_of_the_same_shapes_does_not_go_on(tmp_path, sample):
    few, recipe = sample.take(1000), get_recipe("assignment", epochs=1, batch_size=50)
    mnist_lib.set_seed(0)
    train(Net(), few, recipe, folder=tmp_path, verbose=False)
    before = (tmp_path / "history.json").read_bytes()
    with pytest.raises(RunError, match=r"the run of another net: .* name another folder"):
        train(Negative(), few, recipe, folder=tmp_path, verbose=False)
    assert (tmp_path / "history.json").read_bytes() == before


def test_no_images_have_no_answers():
    assert infer(Net(), torch.zeros(0, 28, 28, dtype=torch.uint8)).shape == (0, 10)
