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
_POINTWISE_FILES = (nn.ReLU.__module__, nn.ZeroPad2d.__module__)  # activations and paddings
_TILES = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Linear, nn.PixelUnshuffle)
# Receptive fields as the assignment's table prints them, from conv1 to conv7.
PRINTED = (3, 3, 5, 5, 10, 12, 12, 14, 14, 28, 30, 30, 32, 32)
MORE_PATHS = "the data takes more than one path; a layer table needs a single path"
MIXED = "it also uses a parameter of no layer, or other images"
MOVED = "pixels are lost, added, moved or mixed between; make a pooling or padding a module"
BITS = 10  # of a number of rows, a pair of images each: see _Trace


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
    """Rows of type `Layer`, in the order of the forward pass; str() gives text, a notebook HTML."""

    @property
    def parameters(self) -> int:
        """Trainable parameters of all layers."""
        return sum(layer.parameters for layer in self)

    @property
    def table(self) -> Table:
        """The rows as text; for the assignment's net, also the fields it prints, * if different."""
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

    __repr__ = __str__

    def _repr_html_(self):
        return self.table._repr_html_()


@torch.no_grad()
def layer_table(net: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> LayerTable:
    """The layers of a CNN whose data takes a single path, in the order of that path.

    Follows `rf += (k - 1) * jump; jump *= stride` (Araujo, Norris and Sim, "Computing Receptive
    Fields of Convolutional Neural Networks", Distill 2019), with k = 1 + dilation * (kernel - 1),
    on a copy of `net` in evaluation mode. Activations may be functions, but pooling must be a
    module, unless a linear layer follows. A layer called twice has its parameters in the first row.
    """
    check_net(net)
    trace, side = _Trace(), crop_of(net, input_shape[-1])
    try:
        net = copy.deepcopy(unwrapped(net)).eval()
        hook_leaves(net, trace.leave)
        for parameter in net.parameters():
            parameter.fill_(torch.nan)  # it shows if one is used outside its layer
    except (RuntimeError, TypeError) as error:  # from computed weights, or torch.jit
        raise ParameterError(f"net cannot be copied and hooked: {error}") from error
    start = max(0, (input_shape[-1] - side) // 2)
    image = next(net.parameters()).new_zeros((2 * BITS, *input_shape))
    middle = image[..., start : start + side, start : start + side]
    middle.copy_(trace.mark(middle, tuple(middle.shape[2:])))
    trace.seen("the net's output", call_net(net, image, input_shape))
    if not trace.rows:
        raise ParameterError("the net's forward calls no layer as a module")
    return LayerTable(trace.rows)


def hook_leaves(net: nn.Module, leave: Callable) -> list[RemovableHandle]:
    """Hook leaf modules: `leave(name, module, args, kwargs, output)` may return a new output."""
    leaves = [(name, part) for name, part in net.named_modules() if not list(part.children())]
    return [p.register_forward_hook(partial(leave, n), with_kwargs=True) for n, p in leaves]


class _Trace:
    """Collects the layers on the data's path, row by row.

    Each output is replaced by numbers with nan at marks, so the next layer's input shows what it
    sees. A bit of the number of rows picks the marked image of each pair: marks of two rows reach
    both images of some pair, and the nan of a parameter reaches both images of every pair.
    """

    def __init__(self):
        self.rows: list[Layer] = []

    def mark(self, output: torch.Tensor, spatial: tuple[int, ...]) -> torch.Tensor:
        """Numbers of the shape of `output`, nan at the marks."""
        self.spatial = spatial  # height and width of the latest output that has them
        pairs = torch.arange(BITS, device="cpu")
        self._marked = 2 * pairs + (len(self.rows) >> pairs & 1)
        marks = _marks(*output.shape[1:]) if output.dim() == 2 else _marks(1, *output.shape[2:])
        numbers = torch.linspace(0.5, 1, output.numel(), device="cpu").view(output.shape)
        numbers[self._marked] = numbers[self._marked].masked_fill(marks, torch.nan)
        return numbers.to(output)

    def seen(self, what: str, tensor: torch.Tensor) -> torch.Tensor:
        """Where a tensor has the latest marks: (BITS, *). Raises ParameterError for others."""
        if not isinstance(tensor, torch.Tensor) or tensor.shape[:1] != (2 * BITS,):
            raise ParameterError(f"{what} must be one tensor, a row per image")
        nan = tensor.isnan().cpu()
        others = nan[self._marked ^ 1].flatten(1).any(1)
        if others.any():
            reason = MIXED if others.all() else MORE_PATHS
            raise ParameterError(f"{what} does not come from the last layer alone: {reason}")
        return nan[self._marked]

    def leave(self, name: str, module: nn.Module, args: tuple, kwargs: dict, output):
        """Check that a layer follows the previous row, add its row, mark its output."""
        field, jump = (self.rows[-1].receptive_field, self.rows[-1].jump) if self.rows else (1, 1)
        output, *indices = output if isinstance(output, tuple) else (output,)
        linear, before = isinstance(module, nn.Linear), self.spatial
        after = (1, 1) if linear else tuple(output.shape[2:]) or before
        kernel, stride = _kernel_and_stride(name, module, before, after)
        seen = self.seen(f"the input of layer {name!r}", *args, *kwargs.values())
        if linear or seen.dim() < 4:
            whole = seen[:2].any(-1).all()  # from the first pixel to the last
        else:
            whole = torch.equal(seen.any(1), _marks(*before))
        if not whole:
            raise ParameterError(f"layer {name!r} does not get the last output as it is: {MOVED}")
        size = field + (kernel - 1) * jump, jump * stride
        shape = tuple(output.shape[1:])
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        module.requires_grad_(False)  # no later row counts them
        self.rows.append(Layer(name, type(module).__name__, shape, parameters, *size))
        return (self.mark(output, after), *indices) if indices else self.mark(output, after)


def _marks(*shape: int) -> torch.Tensor:
    """Marks, bool (BITS, *): only the first place, only the last, then BITS - 2 times all."""
    places = torch.ones(BITS, torch.Size(shape).numel(), dtype=torch.bool, device="cpu")
    places[0, 1:] = places[1, :-1] = False
    return places.view(BITS, *shape)


def _kernel_and_stride(name: str, module: nn.Module, before: tuple, after: tuple) -> tuple:
    """Effective kernel size and stride, from the (height, width) before and after the layer."""

    def side(what: str, value) -> int:
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(set(pair)) != 1:
            raise ParameterError(f"layer {name!r} has a {what} of {pair}; it must be square")
        return pair[0]

    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        dilation = side("dilation", getattr(module, "dilation", 1))
        kernel = 1 + dilation * (side("kernel_size", module.kernel_size) - 1)
        return kernel, side("stride", module.stride)
    if isinstance(module, _TILES):
        old, new = side("spatial input", before), side("spatial output", after)
        if old % new:
            raise ParameterError(f"layer {name!r} pools {old} pixels to {new}, not evenly")
        return old // new, old // new
    if type(module).__module__ in _POINTWISE_FILES or isinstance(module, _POINTWISE):
        return 1, 1
    raise ParameterError(f"layer {name!r} is a {type(module).__name__}, of unknown receptive field")
