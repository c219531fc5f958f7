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
from ..evaluation import check_net, count_parameters, crop_of, scale_of, unwrapped
from ..net import FastNet, Net, middle
from ..nets import FoldedNet, LeanNet, SmallNet, SprintNet

KINDS = (Net, FastNet, FoldedNet, SprintNet, SmallNet, LeanNet)
PAGE = Path(__file__).with_name("drawing.html")


def page(net: nn.Module, name: str = "") -> str:
    """HTML of a page to draw on, with the weights of one of this library's nets embedded.

    It shows the net's `name`, by default its class. For a `Views` net, only the inner net: the page
    shows one view. Raises ParameterError unless the page computes what the net does.
    """
    check_net(net)
    kind = type(unwrapped(net))
    if kind not in KINDS:  # exact types, not isinstance: a subclass may override forward
        names = ", ".join(known.__name__ for known in KINDS)
        raise ParameterError(f"net must be one of {names}, got a {kind.__name__}")
    try:
        layers = _layers(unwrapped(net))
    except Exception as error:  # what a part that is not the library's own may raise
        raise ParameterError(f"net has a part that the page cannot compute: {error}") from error
    name = f"{name or kind.__name__}, {count_parameters(net):,} parameters"
    weights = torch.cat([part.flatten() for layer in layers for part in layer.pop("weights")])
    encoded = base64.b64encode(weights.numpy().astype("<f4").tobytes()).decode()
    mean, std = scale_of(net)
    embedded = {"mean": mean, "sd": std, "crop": crop_of(net), "layers": layers, "weights": encoded}
    text = json.dumps(embedded | {"name": name}).replace("<", "\\u003c")  # so it ends no script
    return PAGE.read_text(encoding="utf-8").replace(">NET<", f">{text}<")


def show(net: nn.Module, name: str = "", height: int = 520) -> None:
    """Display the page in a notebook, in a frame `height` pixels high."""
    from IPython.display import HTML, display

    # An iframe isolates the page, as a notebook may show two. IPython's IFrame takes only a URL.
    frame = f'style="width:100%; height:{height}px; border:0" title="Draw a digit"'
    display(HTML(f'<div><iframe srcdoc="{html.escape(page(net, name))}" {frame}></iframe></div>'))


@torch.no_grad()
def _layers(net: nn.Module) -> list[dict]:
    """The net as a list of convolutions, each with the operations that follow it.

    In evaluation mode a batch norm only scales and shifts, so it is folded into the weights.
    """
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
    inputs = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    x = middle(inputs, crop_of(net))
    for layer in layers:
        x = torch.conv2d(x, *layer["weights"], layer["stride"], layer["padding"])
        x = x.relu() if layer["relu"] else x
        x = torch.max_pool2d(x, 2) if layer["pool"] else x
    if not torch.allclose(x.mean((2, 3)).log_softmax(dim=1), net(inputs), atol=1e-3):
        raise ValueError("its layers, as the page computes them, give other scores")
    return layers


def _merged(separable: nn.Sequential) -> nn.Conv2d:
    """A single convolution equivalent to a depthwise one followed by a pointwise one."""
    depth, point = separable
    sizes = (depth.in_channels, point.out_channels, 3)
    conv = skip_init(nn.Conv2d, *sizes, padding=depth.padding, bias=False)
    conv.weight.copy_(point.weight * depth.weight.transpose(0, 1))
    return conv.eval()
