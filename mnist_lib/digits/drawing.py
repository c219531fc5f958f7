"""A self-contained web page to draw a digit on; its JavaScript runs a net on the drawing."""

import base64
import copy
import html
import itertools
import json
from pathlib import Path

import torch
import torch.nn as nn
from torch.nn.utils import fusion, skip_init

from ..base.errors import ParameterError
from ..evaluation import check_net, crop_of, scale_of, unwrapped
from ..net import FastNet, FoldedNet, LeanNet, Net, SmallNet, SprintNet

PAGE = Path(__file__).with_name("drawing.html")


def page(net: nn.Module) -> str:
    """HTML of a page to draw on, with the weights of one of this library's nets embedded.

    For a `Views` net, only the inner net: the page shows one view.
    """
    layers = _layers(net)
    weights = torch.cat([part.flatten() for layer in layers for part in layer.pop("weights")])
    encoded = base64.b64encode(weights.numpy().astype("<f4").tobytes()).decode()
    mean, std = scale_of(net)
    embedded = {"mean": mean, "sd": std, "crop": crop_of(net), "layers": layers, "weights": encoded}
    return PAGE.read_text(encoding="utf-8").replace(">NET<", f">{json.dumps(embedded)}<")


def show(net: nn.Module, height: int = 430) -> None:
    """Display the page in a notebook, in a frame `height` pixels high."""
    from IPython.display import HTML, display

    # An iframe isolates the page, as a notebook may show two. IPython's IFrame takes only a URL.
    frame = f'style="width:100%; height:{height}px; border:0" title="Draw a digit"'
    display(HTML(f'<div><iframe srcdoc="{html.escape(page(net))}" {frame}></iframe></div>'))


@torch.no_grad()
def _layers(net: nn.Module) -> list[dict]:
    """The net as a list of convolutions, each with the operations that follow it.

    In evaluation mode a batch norm only scales and shifts, so it is folded into the weights.
    """
    check_net(net)
    net = unwrapped(net)
    # Exact types, not isinstance: a subclass may override forward.
    supported = (Net, FastNet, SprintNet, FoldedNet, SmallNet, LeanNet)
    if type(net) not in supported:
        names = ", ".join(kind.__name__ for kind in supported)
        raise ParameterError(f"net must be one of {names}, got a {type(net).__name__}")
    net = copy.deepcopy(net).cpu().float().eval()
    fold = None
    if isinstance(net, Net):
        convs = [net.conv1, net.conv2, net.conv3, net.conv4, net.conv5, net.conv6, net.conv7]
        norms = [net.BatchNorm1, net.BatchNorm2, net.BatchNorm3, net.BatchNorm4, net.BatchNorm5]
        pooled = (net.conv2, net.conv4)
    elif isinstance(net, SmallNet):
        convs = [_merged(conv) if isinstance(conv, nn.Sequential) else conv for conv in net.convs]
        norms, pooled = net.norms, (convs[1],)
    else:
        fold = skip_init(nn.Conv2d, 1, 4, 2, 2, bias=False)
        fold.weight.copy_(torch.eye(4).view(4, 1, 2, 2))  # equivalent to PixelUnshuffle(2)
        scores = skip_init(nn.Conv2d, net.linear.in_features, 10, 1)
        scores.weight.copy_(net.linear.weight[..., None, None])
        scores.bias.copy_(net.linear.bias)
        parts = list(net.children())
        convs = [fold, *(part for part in parts if isinstance(part, nn.Conv2d)), scores]
        norms = [None, *(part for part in parts if isinstance(part, nn.BatchNorm2d))]
        pooled = (net.conv2,)
    layers = []
    for conv, norm in itertools.zip_longest(convs, norms):
        folded = conv if norm is None else fusion.fuse_conv_bn_eval(conv, norm)
        bias = torch.zeros(conv.out_channels) if folded.bias is None else folded.bias
        layers.append(
            {
                "inputs": conv.in_channels,
                "outputs": conv.out_channels,
                "size": conv.kernel_size[0],
                "stride": conv.stride[0],
                "padding": conv.padding[0],
                "relu": conv not in (fold, convs[-1]),
                "pool": conv in pooled,
                "weights": (folded.weight.detach().cpu(), bias.detach().cpu()),
            }
        )
    return layers


def _merged(separable: nn.Sequential) -> nn.Conv2d:
    """A single convolution equivalent to a depthwise one followed by a pointwise one."""
    depth, point = separable
    sizes = (depth.in_channels, point.out_channels, 3)
    conv = skip_init(nn.Conv2d, *sizes, padding=depth.padding, bias=False)
    conv.weight.copy_(point.weight * depth.weight.transpose(0, 1))
    return conv.eval()
