"""What a net answers: log-probabilities of images, and how many of the test images are right."""

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F

from .data import MNIST, as_images, check_data, normalize
from .errors import ParameterError, RunError
from .history import Epoch
from .net import crop_of, device_of, middle, output_of
from .recipe import Recipe

TEST_BATCH = 125  # images; larger ones are hardly faster and take memory


@torch.no_grad()
def infer(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (N, 10) of uint8 images (N, 28, 28), in evaluation mode, on net's device.

    A net may return them itself, or scores (logits), of which log_softmax is then taken. Raises
    ParameterError if it returns anything else, or if `images` are none; see `as_images`.
    """
    images, device = as_images(images), device_of(net)
    with evaluating(net):
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
    with evaluating(net):
        logits = _are_logits(_answer(net, normalize(images[:TEST_BATCH].to(device_of(net)))))
    return (lambda x: F.log_softmax(net(x), dim=1)) if logits else net


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def _answer(net: nn.Module, inputs: torch.Tensor, when: str = "") -> torch.Tensor:
    """The net's output, known to be (N, 10); half precision becomes single."""
    output = output_of(net, inputs, tuple(inputs.shape))
    expected = f"the net must {when}return a tensor ({len(inputs)}, 10), ten scores an image"
    if not isinstance(output, torch.Tensor):
        raise ParameterError(f"{expected}, got a {type(output).__name__}: return the scores alone")
    if output.shape != (len(inputs), 10) or not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise ParameterError(f"{expected}, got {kind}, {tuple(output.shape)}: see its last layers")
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def _of_one(output: torch.Tensor, dim: int) -> tuple[bool, bool]:
    """Whether scores along `dim` are log-probabilities, or probabilities, rounding included."""
    values = output.detach().float()
    logs = not (values.logsumexp(dim).abs() > 0.02).any()
    return logs, bool((values >= 0).all() and ((values.sum(dim) - 1).abs() < 0.02).all())


def _are_logits(output: torch.Tensor) -> bool:
    """Whether scores (N, 10) are not yet log-probabilities.

    Raises ParameterError if no loss can be taken of them: nan, probabilities, or shares of another
    whole than the ten digits.
    """
    if not len(output):
        return False
    if output.isnan().any():
        raise ParameterError("the net returns nan: its weights, or its forward, are broken")
    logs, shares = _of_one(output, 1)
    together = output[:TEST_BATCH]  # images that the net saw in one batch
    if len(together) > 1 and not (logs or shares) and any(_of_one(together, 0)):
        raise ParameterError("the net's softmax is over the images, dim=0: take it over dim=1")
    if shares:
        raise ParameterError(
            "the net returns probabilities: return log_softmax(x, dim=1) or the scores themselves"
        )
    return not logs


def check_in_training(net: nn.Module, data: MNIST, recipe: Recipe) -> None:
    """Raise ParameterError unless `net` answers in training as it does in evaluation, and learns.

    Tried on a batch; and on a batch of one image, if an epoch ends with one.
    """
    device = device_of(net)
    inputs = normalize(data.train_images[: min(recipe.batch_size, TEST_BATCH)].to(device))
    inputs = middle(inputs, crop_of(net))  # as training shows them
    counts = (recipe.epoch_images(e, len(data.train_images)) for e in (1, min(2, recipe.epochs)))
    of_one = any(count % recipe.batch_size == 1 % recipe.batch_size for count in counts)
    with evaluating(net):
        logits = _are_logits(_answer(net, normalize(data.test_images[:TEST_BATCH].to(device))))
    before = copy.deepcopy(net.state_dict())
    was_training = net.training
    try:
        with torch.random.fork_rng(devices=[]):
            net.train()
            output = _answer(net, inputs, "in training ")
            if of_one:
                net(inputs[:1])
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's own, of a batch norm
            raise
        raise ParameterError(
            f"with batch_size {recipe.batch_size} a batch is one image, of which a batch norm of "
            "this net has no variance: choose another batch_size"
        ) from None
    finally:
        net.load_state_dict(before)
        net.train(was_training)
    if not output.requires_grad:
        raise ParameterError(
            "the net's output depends on no parameter that is trained: leave requires_grad on, and "
            "no_grad and detach out of its forward"
        )
    if _are_logits(output.detach()) != logits:
        raise ParameterError(
            "the net returns log-probabilities in one of training and evaluation, and scores in "
            "the other: return the same in both"
        )


def check_goes_on(net: nn.Module, data: MNIST, epochs: list[Epoch]) -> None:
    """Raise RunError if a net that is resumed does not answer as it did, but for rounding.

    Another net may have weights of the same shapes: with another activation, say.
    """
    if not epochs:
        return
    _, correct = evaluate(net, data)
    if abs(correct - epochs[-1].correct) > 2 + len(data.test_images) / 200:
        raise RunError(
            f"the run's folder holds the run of another net: with its weights this one has "
            f"{correct} of {epochs[-1].images} right, not {epochs[-1].correct}; name another "
            "folder, or train anew with resume=False"
        )
