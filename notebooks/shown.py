"""What the notebooks show of any net, and the sentence where it cannot be shown."""

import contextlib
import html
import inspect
from collections.abc import Iterator

import torch.nn as nn
from IPython.display import HTML, display

from mnist_lib import LayerTable, layer_table
from mnist_lib.evaluation import unwrapped


@contextlib.contextmanager
def or_say_why(what: str) -> Iterator[None]:
    """Where the block fails to show `what` of a net, say so in a sentence, and go on.

    A net is foreign code: it can raise anything.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        print(f"{what} cannot be shown for this net: {reason}")


def show_text(title: str, text: str, folded: bool = True) -> None:
    """Display code or a table below its title; lines longer than the page can be scrolled.

    JupyterLab would break words.
    """
    start = f"<details{'' if folded else ' open'}><summary>{html.escape(title)}</summary>"
    style = "overflow-x: auto; white-space: pre; word-break: normal; font-family: monospace"
    display(HTML(f'{start}<pre style="{style}">{html.escape(text)}</pre></details>'))


def show_net(net: nn.Module, known: LayerTable | tuple = ()) -> None:
    """Display the source of a net's class, folded, and its layers, or why they have no table.

    Layers that are the `known` ones, shown before, are left out. For a class without source code of
    its own, such as nn.Sequential, the modules are shown.
    """
    kind, text = type(unwrapped(net)), repr(net)
    with contextlib.suppress(OSError, TypeError):  # no source, as in a notebook's cell
        text = text if kind.__module__.startswith("torch.") else inspect.getsource(kind)
    show_text(f"The net that runs: {kind.__name__}", text)
    with or_say_why("The layer table"):
        if (table := layer_table(net)) != known:
            display(table)
