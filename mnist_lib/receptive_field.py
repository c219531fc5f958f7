"""What each layer of a net sees: shape, parameters, receptive field and jump, all computed."""

import copy
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn as nn

from .errors import ParameterError
from .evaluation import call, check_net, crop_of, unwrapped
from .tables import Table

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Layers that keep each pixel in its place. Normalisation is counted by convention as pointwise.
_POINTWISE = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Identity,
    nn.Flatten,
)


# The receptive fields that the assignment's table prints, from conv1 to conv7.
PRINTED = (3, 3, 5, 5, 10, 12, 12, 14, 14, 28, 30, 30, 32, 32)


@dataclass(frozen=True)
class Layer:
    """One row of a layer table."""

    name: str  # as in the net's state_dict
    kind: str  # the module's class
    output_shape: tuple[int, ...]  # without the batch
    parameters: int  # trainable
    receptive_field: int  # side of the square of input pixels that one output sees
    jump: int  # input pixels between two neighbouring outputs


class LayerTable(tuple):
    """The rows of `layer_table`, in the order of the forward pass.

    str() lays them out; a notebook shows HTML. If the layers are those of the assignment's table,
    its receptive fields stand beside ours.
    """

    @property
    def parameters(self) -> int:
        """Trainable parameters of all layers."""
        return sum(layer.parameters for layer in self)

    @property
    def table(self) -> Table:
        """The rows as text."""
        rows = [
            {
                "layer": f"{layer.name}, {layer.kind}",
                "output": " x ".join(map(str, layer.output_shape)),
                "parameters": f"{layer.parameters:,}",
                "receptive field": str(layer.receptive_field),
            }
            for layer in self
        ]
        if len(self) == len(PRINTED) and self.parameters == 13_322:
            for row, printed in zip(rows, PRINTED, strict=True):
                off = "" if str(printed) == row["receptive field"] else "*"
                row["assignment"] = f"{printed}{off}"
        total = dict.fromkeys(rows[0], "") | {
            "layer": "total",
            "parameters": f"{self.parameters:,}",
        }
        return Table([*rows, total], left=2)

    def __str__(self):
        return str(self.table)

    def _repr_html_(self):
        return self.table._repr_html_()


def layer_table(net: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> LayerTable:
    """The layers of a CNN whose data takes one path, in the order it takes it.

    Follows `rf += (k - 1) * jump; jump *= stride` (Araujo, Norris and Sim, "Computing Receptive
    Fields of Convolutional Neural Networks", Distill 2019), with k = 1 + dilation * (kernel - 1),
    on a copy of `net` in evaluation mode. Functional calls are seen only by what they do to the
    shape: an activation may stay functional, a pooling may not. A layer that is called twice has
    two rows, its parameters in the first.

    Raises ParameterError if a layer's receptive field cannot be computed, if the data takes more
    than one path, or if `net` is none.
    """
    check_net(net)
    net = copy.deepcopy(unwrapped(net)).eval()
    parameter = next(net.parameters())
    image = torch.zeros(2, *input_shape, device=parameter.device, dtype=parameter.dtype)
    image.requires_grad_()  # so that torch keeps the way that the data takes
    trace = _Trace(tuple(min(side, crop_of(net, side)) for side in input_shape[1:]))
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(partial(trace.enter, name))
            module.register_forward_hook(partial(trace.leave, name))
    output = call(net, image, input_shape)
    if not trace.rows or not trace.follows(output):
        raise ParameterError(
            "the net's output does not come from its last layer alone: the data takes more than "
            "one path, of which no table is made"
        )
    return LayerTable(trace.rows)


class _Trace:
    """The layers that an image comes through, row by row, and whether it takes one path.

    `spatial`: height and width of the last output that had any; first, of what the net looks at.
    """

    def __init__(self, spatial: tuple[int, ...]):
        self.spatial = spatial
        self.rows: list[Layer] = []
        self._ways: dict = {}  # the node of each row's output in torch's graph
        self._counted: set[int] = set()  # parameters, by their identity

    def enter(self, name: str, module: nn.Module, inputs: tuple) -> None:
        """Before a layer: it must follow the one before."""
        if not self.follows(inputs[0]):
            raise ParameterError(
                f"layer {name!r} does not follow the layer before it alone: the data takes more "
                "than one path, of which no table is made"
            )
        shape = tuple(inputs[0].shape[2:])
        if shape and shape != self.spatial:
            raise ParameterError(
                f"layer {name!r} gets {shape}, but the layer before gave {self.spatial}: "
                "a pooling between them has to be a module"
            )

    def leave(self, name: str, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        """After a layer: its row."""
        field, jump = (self.rows[-1].receptive_field, self.rows[-1].jump) if self.rows else (1, 1)
        kernel, stride = _kernel_and_stride(name, module, self.spatial)
        if isinstance(module, nn.Linear):
            self.spatial = (1, 1)
        else:
            self.spatial = tuple(output.shape[2:]) or self.spatial
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in self._counted]
        self._counted.update(map(id, own))
        self._ways[output.grad_fn] = len(self.rows)
        self.rows.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                output_shape=tuple(output.shape[1:]),
                parameters=sum(p.numel() for p in own),
                receptive_field=field + (kernel - 1) * jump,
                jump=jump * stride,
            )
        )

    def follows(self, tensor) -> bool:
        """Whether a tensor was made of the last row's output alone; before any, of the image."""
        if not isinstance(tensor, torch.Tensor):
            return False
        if tensor.grad_fn is None:  # the image itself, or cut off from it
            return tensor.requires_grad and not self.rows
        found, seen, nodes = set(), set(), [tensor.grad_fn]
        while nodes:
            node = nodes.pop()
            if node in self._ways:
                found.add(self._ways[node])
            elif node is not None and node not in seen:
                seen.add(node)
                variable = getattr(node, "variable", None)
                if variable is not None and not isinstance(variable, nn.Parameter):
                    found.add(-1)  # the image
                nodes += [before for before, _ in node.next_functions]
        return found == {len(self.rows) - 1}


def _kernel_and_stride(name: str, module: nn.Module, spatial: tuple[int, ...]) -> tuple[int, int]:
    """Effective kernel and stride, in pixels of the layer's own input."""
    if isinstance(module, nn.Conv2d):
        dilation = _square(name, "dilation", module.dilation)
        kernel = _square(name, "kernel_size", module.kernel_size)
        return 1 + dilation * (kernel - 1), _square(name, "stride", module.stride)
    if isinstance(module, _POOLS):
        kernel = _square(name, "kernel_size", module.kernel_size)
        dilation = _square(name, "dilation", getattr(module, "dilation", 1))
        return 1 + dilation * (kernel - 1), _square(name, "stride", module.stride)
    if isinstance(module, nn.PixelUnshuffle):
        return module.downscale_factor, module.downscale_factor
    if isinstance(module, _ADAPTIVE_POOLS):
        size = _square(name, "output_size", module.output_size)
        side = _square(name, "input", spatial)
        if side % size:
            raise ParameterError(
                f"layer {name!r} pools {side} pixels to {size}: not a whole number"
            )
        return side // size, side // size
    if isinstance(module, nn.Linear):  # sees all that is left of the image
        side = _square(name, "input", spatial)
        return side, side
    activation = type(module).__module__ == nn.ReLU.__module__
    if isinstance(module, _POINTWISE) or (
        activation and not isinstance(module, nn.MultiheadAttention)
    ):
        return 1, 1
    raise ParameterError(
        f"layer {name!r} is a {type(module).__name__}, whose receptive field is not known"
    )


def _square(name: str, what: str, value) -> int:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(set(pair)) != 1:
        raise ParameterError(
            f"layer {name!r} has a {what} of {pair}; only square ones are computed"
        )
    return pair[0]
