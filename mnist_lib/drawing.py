"""Draw a digit and see what a net makes of it: one page that needs nothing but a browser.

The weights travel in the page as numbers, and some hundred lines of JavaScript run the net on them.
"""

import base64
import copy
import html
import json
from pathlib import Path

import torch
import torch.nn as nn
from torch.nn.utils import fusion, skip_init

from .augment import MEAN, STD
from .errors import ParameterError
from .evaluation import check_net, crop_of, unwrapped
from .net import FastNet, LeanNet, Net, SmallNet, SprintNet

PAGE = Path(__file__).with_name("drawing.html")


def page(net: nn.Module) -> str:
    """The HTML of a page to draw on, with the weights of a net of this library inside.

    Of a net of views it has the net alone: the page looks once.

    Raises ParameterError for another net.
    """
    layers = _layers(net)
    weights = torch.cat([part.flatten() for layer in layers for part in layer.pop("weights")])
    told = {
        "mean": MEAN,
        "sd": STD,
        "crop": crop_of(net),
        "layers": layers,
        "weights": base64.b64encode(weights.numpy().astype("<f4").tobytes()).decode(),
    }
    return PAGE.read_text(encoding="utf-8").replace(">NET<", f">{json.dumps(told)}<")


def show(net: nn.Module, height: int = 430) -> None:
    """Display the page in a notebook, in a frame `height` pixels high. Raises as `page` does."""
    from IPython.display import HTML, display

    # A frame of its own, since a notebook may show two. IPython's IFrame takes no page, but a file.
    frame = f'style="width:100%; height:{height}px; border:0" title="Draw a digit"'
    display(HTML(f'<div><iframe srcdoc="{html.escape(page(net))}" {frame}></iframe></div>'))


@torch.no_grad()
def _layers(net: nn.Module) -> list[dict]:
    """The net as convolutions alone, each with what comes after it.

    A batch norm in evaluation only scales and shifts, so it becomes a part of the weights.
    """
    check_net(net)
    net = unwrapped(net)
    # By type, not isinstance: the forward of a subclass may be another.
    known = (Net, FastNet, SprintNet, SmallNet, LeanNet)
    if type(net) not in known:
        names = ", ".join(kind.__name__ for kind in known)
        raise ParameterError(f"net must be one of {names}, got a {type(net).__name__}")
    net = copy.deepcopy(net).cpu().eval()
    if isinstance(net, Net):
        norms = [net.BatchNorm1, net.BatchNorm2, net.BatchNorm3, net.BatchNorm4, net.BatchNorm5]
        convs = [net.conv1, net.conv2, net.conv3, net.conv4, net.conv5, net.conv6, net.conv7]
        norms, pooled, plain = [*norms, None, None], (net.conv2, net.conv4), (net.conv7,)
    elif isinstance(net, SmallNet):
        convs = [_dense(conv) if isinstance(conv, nn.Sequential) else conv for conv in net.convs]
        norms = [*net.norms, None][: len(convs)]
        pooled, plain = (convs[1],), (convs[-1],)
    else:
        fold = skip_init(nn.Conv2d, 1, 4, 2, 2, bias=False)
        fold.weight.copy_(torch.eye(4).view(4, 1, 2, 2))  # which is what PixelUnshuffle does
        scores = skip_init(nn.Conv2d, 48, 10, 1)
        scores.weight.copy_(net.linear.weight[..., None, None])
        scores.bias.copy_(net.linear.bias)
        convs = [fold, net.conv1, net.conv2, net.conv3, scores]
        norms, pooled = [None, net.norm1, net.norm2, net.norm3, None], (net.conv2,)
        plain = (fold, scores)
    return [
        {
            "inputs": conv.in_channels,
            "outputs": conv.out_channels,
            "size": conv.kernel_size[0],
            "stride": conv.stride[0],
            "padding": conv.padding[0],
            "relu": conv not in plain,
            "pool": conv in pooled,
            "weights": _folded(conv, norm),
        }
        for conv, norm in zip(convs, norms, strict=True)
    ]


def _dense(separable: nn.Sequential) -> nn.Conv2d:
    """The one convolution that does what two do: on each channel alone, then across them."""
    depth, point = separable
    conv = skip_init(
        nn.Conv2d, depth.in_channels, point.out_channels, 3, padding=depth.padding, bias=False
    )
    conv.weight.copy_(point.weight * depth.weight.transpose(0, 1))
    return conv.eval()


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and biases of a convolution and the batch norm after it."""
    if norm is not None:
        conv = fusion.fuse_conv_bn_eval(conv, norm)
    bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
    return conv.weight.detach().cpu(), bias.detach().cpu()
