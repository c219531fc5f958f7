"""The layers of a net as a table: output shape, parameters, receptive field and jump."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn as nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.hooks import RemovableHandle

from ..base.errors import ParameterError
from ..base.tables import Table
from ..evaluation import call_net, check_net, crop_of, unwrapped

# Layers in which each output sees one pixel. By convention, normalisation counts as such.
_POINTWISE = (_BatchNorm, _DropoutNd, nn.GroupNorm, nn.LayerNorm, nn.Identity, nn.Flatten)
# Receptive fields as the assignment's table prints them, from conv1 to conv7.
PRINTED = (3, 3, 5, 5, 10, 12, 12, 14, 14, 28, 30, 30, 32, 32)
MORE_PATHS = "the data takes more than one path; a layer table needs a single path"


@dataclass(frozen=True)
class Layer:
    """One row of a layer table."""

    name: str  # as in the net's state_dict
    kind: str  # the module's class
    output_shape: tuple[int, ...]  # without the batch dimension
    parameters: int  # trainable
    receptive_field: int  # side of the square of input pixels that one output sees
    jump: int  # input pixels between neighbouring outputs


class LayerTable(tuple):
    """Rows of type `Layer`, in the order of the forward pass; str() gives text, a notebook HTML.

    For the assignment's net, a column shows the receptive fields that the assignment prints.
    """

    @property
    def parameters(self) -> int:
        """Trainable parameters of all layers."""
        return sum(layer.parameters for layer in self)

    @property
    def table(self) -> Table:
        """The rows formatted as text; a * marks a printed receptive field that is off."""
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
        total = {"layer": "total", "parameters": f"{self.parameters:,}"}
        return Table([*rows, dict.fromkeys(rows[0], "") | total], left=2)

    def __str__(self):
        return str(self.table)

    def _repr_html_(self):
        return self.table._repr_html_()


def layer_table(net: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> LayerTable:
    """The layers of a CNN whose data takes a single path, in the order of that path.

    Follows `rf += (k - 1) * jump; jump *= stride` (Araujo, Norris and Sim, "Computing Receptive
    Fields of Convolutional Neural Networks", Distill 2019), with k = 1 + dilation * (kernel - 1),
    on a copy of `net` in evaluation mode. Activations may be functions, but pooling must be a
    module. A layer called twice gets two rows, with its parameters in the first.
    """
    check_net(net)
    net = copy.deepcopy(unwrapped(net)).eval()
    # With a gradient, so that autograd records the data's path.
    image = next(net.parameters()).new_zeros((2, *input_shape), requires_grad=True)
    trace = _Trace(tuple(min(side, crop_of(net, side)) for side in input_shape[1:]))
    hook_leaves(net, trace.leave, trace.enter)
    output = call_net(net, image, input_shape)
    if not trace.rows or not trace.follows(output):
        raise ParameterError(f"the net's output does not come from its last layer: {MORE_PATHS}")
    return LayerTable(trace.rows)


def hook_leaves(
    net: nn.Module, leave: Callable, enter: Callable | None = None
) -> list[RemovableHandle]:
    """Hook the leaf modules of `net`.

    `enter(name, module, inputs)` runs before each, `leave(name, module, inputs, output)` after it.
    """
    leaves = [(name, part) for name, part in net.named_modules() if not list(part.children())]
    hooks = [part.register_forward_hook(partial(leave, name)) for name, part in leaves]
    if enter:
        hooks += [part.register_forward_pre_hook(partial(enter, name)) for name, part in leaves]
    return hooks


class _Trace:
    """Collects the layers on the data's path, row by row."""

    def __init__(self, spatial: tuple[int, ...]):
        self.spatial = spatial  # height and width of the latest output that has them
        self.rows: list[Layer] = []
        self._nodes: dict = {}  # from the autograd node of an output to its row number
        self._counted: set[int] = set()  # ids of the parameters in earlier rows

    def enter(self, name: str, module: nn.Module, inputs: tuple) -> None:
        """Check that a layer follows the previous row."""
        if not self.follows(inputs[0]):
            raise ParameterError(f"layer {name!r} does not follow the previous one: {MORE_PATHS}")
        shape = tuple(inputs[0].shape[2:])
        if shape and shape != self.spatial:
            problem = f"gets {shape}, but the previous layer returned {self.spatial}"
            raise ParameterError(f"layer {name!r} {problem}: a pooling between must be a module")

    def leave(self, name: str, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        """Add the layer's row."""
        field, jump = (self.rows[-1].receptive_field, self.rows[-1].jump) if self.rows else (1, 1)
        kernel, stride = _kernel_and_stride(name, module, self.spatial)
        field += (kernel - 1) * jump
        jump *= stride
        linear = isinstance(module, nn.Linear)
        self.spatial = (1, 1) if linear else tuple(output.shape[2:]) or self.spatial
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in self._counted]
        self._counted.update(map(id, own))
        self._nodes[output.grad_fn] = len(self.rows)
        shape, parameters = tuple(output.shape[1:]), sum(p.numel() for p in own)
        self.rows.append(Layer(name, type(module).__name__, shape, parameters, field, jump))

    def follows(self, tensor) -> bool:
        """Whether a tensor depends only on the last row's output or, before any row, the image."""
        if not isinstance(tensor, torch.Tensor):
            return False
        if tensor.grad_fn is None:  # the image itself, or detached
            return tensor.requires_grad and not self.rows
        found, seen, nodes = set(), set(), [tensor.grad_fn]
        while nodes:
            node = nodes.pop()
            if node in self._nodes:
                found.add(self._nodes[node])
            elif node is not None and node not in seen:
                seen.add(node)
                if not isinstance(getattr(node, "variable", None), nn.Parameter | None):
                    found.add(-1)  # the image
                nodes += [parent for parent, _ in node.next_functions]
        return found == {len(self.rows) - 1}


def _kernel_and_stride(name: str, module: nn.Module, spatial: tuple[int, ...]) -> tuple[int, int]:
    """Effective kernel size and stride, in pixels of the layer's input."""

    def side(what: str, value) -> int:
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(set(pair)) != 1:
            raise ParameterError(f"layer {name!r} has a {what} of {pair}; it must be square")
        return pair[0]

    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        dilation = side("dilation", getattr(module, "dilation", 1))
        kernel = 1 + dilation * (side("kernel_size", module.kernel_size) - 1)
        return kernel, side("stride", module.stride)
    if isinstance(module, nn.PixelUnshuffle):
        return module.downscale_factor, module.downscale_factor
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.Linear):
        before = side("spatial input", spatial)  # a linear layer sees all of it
        after = 1 if isinstance(module, nn.Linear) else side("target size", module.output_size)
        if before % after:
            problem = f"pools {before} pixels to {after}, which does not divide them evenly"
            raise ParameterError(f"layer {name!r} {problem}")
        return before // after, before // after
    if type(module).__module__ == nn.ReLU.__module__ or isinstance(module, _POINTWISE):
        return 1, 1
    kind = type(module).__name__
    raise ParameterError(f"layer {name!r} is a {kind}, whose receptive field is unknown")
