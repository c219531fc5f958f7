"""What a net answers: log-probabilities of images, and how many of the test images are right."""

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F

from .data import MNIST, as_images, check_data, normalize
from .errors import ParameterError
from .net import device_of, output_of
from .recipe import Recipe

TEST_BATCH = 250  # images; larger ones take memory


@torch.no_grad()
def infer(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (N, 10) of uint8 images (N, 28, 28), in evaluation mode, on net's device.

    A net may return them itself, or scores (logits), of which log_softmax is then taken. Raises
    ParameterError if it returns anything else, or if `images` are none; see `as_images`.
    """
    images, device = as_images(images), device_of(net)
    with _evaluating(net):
        parts = images.split(TEST_BATCH)
        output = torch.cat([_answer(net, normalize(part.to(device))) for part in parts])
    return F.log_softmax(output, dim=1) if _are_logits(output) else output


def evaluate(net: nn.Module, data: MNIST) -> tuple[float, int]:
    """Mean negative log-likelihood (nats) over the test images, and how many are right.

    Raises ParameterError as `infer` does, or if `data` is no MNIST.
    """
    check_data(data)
    output = infer(net, data.test_images)
    labels = data.test_labels.to(output.device)
    loss = F.nll_loss(output, labels, reduction="sum").item() / len(labels)
    correct = (output.argmax(dim=1) == labels).sum().item()
    return loss, correct


@torch.no_grad()
def log_probabilities(net: nn.Module, images: torch.Tensor) -> Callable:
    """From a net's input to log-probabilities: the net itself or, if it returns logits, with more.

    Tried on some uint8 images (N, 28, 28), in evaluation mode. Raises as `infer` does.
    """
    with _evaluating(net):
        logits = _are_logits(_answer(net, normalize(images[:TEST_BATCH].to(device_of(net)))))
    return (lambda x: F.log_softmax(net(x), dim=1)) if logits else net


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def _answer(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The net's output, known to be (N, 10)."""
    output = output_of(net, inputs, tuple(inputs.shape))
    expected = f"the net must return a tensor ({len(inputs)}, 10), a row of ten scores an image"
    if not isinstance(output, torch.Tensor):
        raise ParameterError(f"{expected}, got a {type(output).__name__}: return the scores alone")
    if output.shape != (len(inputs), 10) or not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise ParameterError(f"{expected}, got {kind}, {tuple(output.shape)}: see its last layers")
    return output


def _are_logits(output: torch.Tensor) -> bool:
    """Whether scores (N, 10) are not yet log-probabilities. Raises ParameterError if they are
    probabilities, of which no loss can be taken."""
    total = output.float().logsumexp(dim=1)
    if not (total.abs() > 0.02).any():  # log-probabilities, rounding included
        return False
    if ((output >= 0).all() & ((output.float().sum(dim=1) - 1).abs() < 0.02).all()).item():
        raise ParameterError(
            "the net returns probabilities: return log_softmax(x, dim=1) or the scores themselves"
        )
    return True


def check_batch_of_one(net: nn.Module, data: MNIST, recipe: Recipe) -> None:
    """Raise ParameterError if a batch in training is one image, and a batch norm refuses that."""
    size = recipe.batch_size
    epochs = range(1, min(2, recipe.epochs) + 1)  # the later ones are as the second
    counts = (recipe.epoch_images(epoch, len(data.train_images)) for epoch in epochs)
    if all(count % size != 1 % size for count in counts):
        return
    one = normalize(data.train_images[:1]).to(device_of(net))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            copy.deepcopy(net).train()(one)
    except ValueError:  # torch's own: "Expected more than 1 value per channel when training"
        raise ParameterError(
            f"with batch_size {size} a batch is one image, of which a batch norm of this net has "
            "no variance: choose another batch_size"
        ) from None
