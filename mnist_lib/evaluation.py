"""Evaluates nets: log-probabilities, correct test images; also a net's crop, device and size."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F

from .augment import Views, normalize
from .base.arrays import as_images
from .base.errors import MnistLibError, ParameterError, shorten
from .data import MNIST, check_data

TEST_BATCH = 125  # images; larger batches are hardly faster and take memory


@torch.no_grad()
def infer(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (N, 10) of uint8 images (N, 28, 28), in evaluation mode, on net's device.

    If the net returns scores (logits), they go through log_softmax.
    """
    images, device = as_images(images), device_of(net)
    with evaluating(net):
        parts = images.split(TEST_BATCH)
        output = torch.cat([checked_output(net, normalize(part.to(device))) for part in parts])
    return F.log_softmax(output, dim=1) if are_logits(output) else output


def evaluate(net: nn.Module, data: MNIST) -> tuple[float, int]:
    """Mean negative log-likelihood (nats) over the test images, and how many are right."""
    check_data(data)
    output = infer(net, data.test_images)
    labels = data.test_labels.to(output.device)
    loss = F.nll_loss(output, labels, reduction="sum").item() / len(labels)
    return loss, (output.argmax(dim=1) == labels).sum().item()


@torch.no_grad()
def log_probabilities(net: nn.Module, images: torch.Tensor) -> Callable:
    """A function from net's input to log-probabilities: the net, with log_softmax if it lacks one.

    The net is tried on uint8 images (N, 28, 28), in evaluation mode.
    """
    with evaluating(net):
        logits = are_logits(checked_output(net, normalize(images[:TEST_BATCH].to(device_of(net)))))
    return (lambda x: F.log_softmax(net(x), dim=1)) if logits else net


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; the net's own mode after it."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def checked_output(net: nn.Module, inputs: torch.Tensor, when: str = "") -> torch.Tensor:
    """The net's output, checked to be (N, 10); half precision becomes single."""
    output = call_net(net, inputs, tuple(inputs.shape))
    expected = f"the net must {when}return a tensor ({len(inputs)}, 10), ten scores per image"
    if not isinstance(output, torch.Tensor):
        raise ParameterError(f"{expected}, got a {type(output).__name__}: return the scores alone")
    if output.shape != (len(inputs), 10) or not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise ParameterError(f"{expected}, got {kind}, {tuple(output.shape)}: see its last layers")
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def are_logits(output: torch.Tensor) -> bool:
    """Whether scores (N, 10) are not yet log-probabilities.

    Raises ParameterError for nan, probabilities, or a softmax over the images.
    """
    if not len(output):
        return False
    if output.isnan().any():
        raise ParameterError("the net returns nan: its weights, or its forward, are broken")
    logs, shares = _sums_to_one(output, 1)
    together = output[:TEST_BATCH]  # images that the net saw in one batch
    if len(together) > 1 and not (logs or shares) and any(_sums_to_one(together, 0)):
        raise ParameterError("the net's softmax is over the images, dim=0: take it over dim=1")
    if shares:
        raise ParameterError(
            "the net returns probabilities: return log_softmax(x, dim=1) or the scores themselves"
        )
    return not logs


def _sums_to_one(output: torch.Tensor, dim: int) -> tuple[bool, bool]:
    """Whether scores are, along `dim`, log-probabilities or probabilities, up to rounding."""
    values = output.float()
    logs = not (values.logsumexp(dim).abs() > 0.02).any()
    return logs, bool((values >= 0).all() and ((values.sum(dim) - 1).abs() < 0.02).all())


def call_net(net: nn.Module, inputs: torch.Tensor, shape: tuple[int, ...]):
    """`net(inputs)`. Raises ParameterError, naming the `shape`, if the net cannot take them."""
    try:
        return net(inputs)
    except MnistLibError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ParameterError(f"net cannot take images of shape {shape}: {reason}") from error


def check_net(net) -> None:
    """Raise ParameterError unless `net` is a module with parameters."""
    if isinstance(net, type) and issubclass(net, nn.Module):
        raise ParameterError(f"net is the class {net.__name__}: make one, {net.__name__}()")
    if not isinstance(net, nn.Module) or not any(True for _ in net.parameters()):
        raise ParameterError(f"net must be a torch.nn.Module with parameters, got {shorten(net)}")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in net.parameters()):
        raise ParameterError("net has lazy layers without a shape yet: call it on a batch first")


def unwrapped(net: nn.Module) -> nn.Module:
    """The net inside Views, DataParallel and torch.compile."""
    wrappers = (Views, nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(net, wrappers) or hasattr(net, "_orig_mod"):
        net = net.module if isinstance(net, wrappers) else net._orig_mod
    return net


def crop_of(net: nn.Module, default: int = 28) -> int:
    """The side, in pixels, of the middle of an image that `net` looks at, if it says so."""
    return getattr(unwrapped(net), "crop", default)


def device_of(net: nn.Module) -> torch.device:
    """The device of the net's first parameter."""
    check_net(net)
    return next(net.parameters()).device


def count_parameters(net: nn.Module) -> int:
    """The number of parameters of `net`, frozen ones included, each tensor counted once."""
    check_net(net)
    return sum(p.numel() for p in net.parameters())
