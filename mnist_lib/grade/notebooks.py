"""Reads executed notebooks: the runs in their outputs, and what their source says of the data."""

import ast
import contextlib
import json
import os
import re
import warnings
from collections import namedtuple
from pathlib import Path

from ..base.errors import DataError
from ..base.files import as_path, read_text
from .parse import LoggedRun, read_runs

LIMIT = 100_000_000  # bytes of a file: most of a notebook is pictures
_TABLE = re.compile(r"total param\w*s:(?: |\x1b\[[\d;]*m)*(\d[\d,]{0,15}+)(?!\.\d| ?[km]\b)", re.I)
_CLASS = re.compile(r"^class +\w+ *\([^)\n]*Module", re.M)
_DATA = re.compile(r"CIFAR100?|FashionMNIST|[KEQ]?MNIST|SVHN|USPS")
_TESTS = re.compile(r"(?!\w*train)(?:\w+_)?(?:test|val|eval)\w*")  # functions' names
_LAYERS = re.compile("conv|linear|sequential|block", re.I)
_MAGIC = re.compile(r"^([ \t]*)(?:\w+ *= *)?[!%?].*", re.M)  # IPython's own lines

# count: the cell's execution count; nodes: those of its source's syntax tree
Cell = namedtuple("Cell", "count source nodes shown")


def read_notebook(path: str | os.PathLike) -> list[LoggedRun]:
    """The runs in a notebook's outputs (.ipynb, nbformat 3 on), or in a log; nothing is executed.

    Raises RunError if the file cannot be read, DataError if it is not a notebook.
    """
    return read_submission(as_path("path", path))[0]


def read_submission(path: Path) -> tuple[list[LoggedRun], list[str], bool, dict[int, Cell]]:
    """A file's runs, what cannot be read, whether its data are MNIST's, and its code cells."""
    if path.is_file() and (size := path.stat().st_size) > LIMIT:
        raise DataError(f"{path} has {size:,} bytes: more than {LIMIT:,} are not read")
    text, cells = read_text(path), {}
    if path.suffix.lower() != ".ipynb":
        return *read_runs({0: text}), True, {0: Cell(0, "", [], text)}
    try:
        notebook = json.loads(text)
        sheets = notebook.get("worksheets") or [notebook]  # nbformat 3 has them
        for at, cell in enumerate((cell for sheet in sheets for cell in sheet["cells"]), 1):
            if cell["cell_type"] == "code":
                count = cell.get("execution_count", cell.get("prompt_number")) or 0
                source = "".join(cell.get("source", cell.get("input")))[:100_000]
                shown = "\n".join(map(_shown, cell.get("outputs") or ()))
                cells[at] = Cell(int(count), source, _nodes(source), shown)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise DataError(f"{path} is not a notebook: {error!r:.99}") from None
    runs, unread = read_runs({at: cell.shown for at, cell in cells.items()})
    used = {_name(node): at for at, cell in cells.items() for node in cell.nodes}
    data = {name: at for name, at in used.items() if _DATA.fullmatch(name)}
    on_mnist = not data or "MNIST" in data
    unread += [] if on_mnist else [f"cell {at}: {name}, not MNIST" for name, at in data.items()]
    return runs, unread, on_mnist, cells


def _shown(output: dict) -> str:
    """The text of an output, or an error's name; each may be a list of lines."""
    data = output.get("data", output)
    texts = output.get("text"), data.get("text/markdown"), data.get("text/plain")
    return "".join(next(filter(None, texts), output.get("ename") or ""))


def _nodes(source: str) -> list[ast.AST]:
    """The nodes of a cell's syntax tree; none if it is not Python."""
    for code in (source, _MAGIC.sub(r"\1pass", source)):
        broken = contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError)
        with broken, warnings.catch_warnings(action="ignore"):
            return list(ast.walk(ast.parse(code)))
    return []


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def parameters(cells: dict[int, Cell], run: LoggedRun) -> tuple[int | str, list[str]]:
    """The number in the table before the run; or "?" or "stale", and why if there are tables."""
    own = run.epochs[0].cell
    found = {at: _TABLE.findall(cell.shown) for at, cell in cells.items()}
    shown = {at: {int(text.replace(",", "")) for text in found[at]} for at in found if found[at]}
    table = max((at for at in shown if at <= own), default=None)
    if table is None or len(shown[table]) > 1:
        why = ", ".join(f"cell {at} shows {sorted(sizes)}" for at, sizes in shown.items())
        return "?", [f"parameters not of this run, in cell {own}: {why}"] * bool(why)
    counts = {at: cell.count for at, cell in cells.items()}
    if not (counts[table] and counts[own]):  # some editors drop them
        counts = {at: at for at in cells}
    first, last = sorted((counts[table], counts[own]))
    for at, cell in cells.items():
        if first < counts[at] < last and _CLASS.search(cell.source):
            why = f"cell {at}: the class was run again, after the table in cell {table}"
            return "stale", [f"parameters not of this run: {why}"]
    modules = {node.name for cell in cells.values() for node in cell.nodes if _has_layers(node)}
    called = {at: [n.func for n in cells[at].nodes if isinstance(n, ast.Call)] for at in cells}
    made = {at: modules.intersection(map(_name, called[at])) for at in cells}
    known = set().union(*(made[at] for at in cells if at <= table))
    for at in (at for at in cells if known and table < at <= own and made[at] - known):
        why = f"cell {at}: a {min(made[at] - known)} is made, after the table in cell {table}"
        return "stale", [f"parameters not of this run: {why}"]
    return shown[table].pop(), []


def _has_layers(node: ast.AST) -> bool:
    """Whether it is a class that makes layers, which losses and Lightning's wrappers do not."""
    calls = (_name(n.func) for n in ast.walk(node) if isinstance(n, ast.Call))
    return isinstance(node, ast.ClassDef) and any(map(_LAYERS.search, calls))


def leaks(cells: dict[int, Cell], run: LoggedRun) -> list[str]:
    """A flag for the first call that tests the run on its training data, if there is one."""
    training, calls = {}, []  # by variable, whether it holds training data; None is unknown
    for at, cell in cells.items():
        for node in cell.nodes:
            if isinstance(node, ast.Assign):
                ends = (getattr(end, "elts", [end]) for end in (node.targets[0], node.value))
                for name, value in zip(map(_name, next(ends)), next(ends), strict=False):
                    training[name] = _is_training_data(value, training) if name else None
        for node in cell.nodes:
            if isinstance(node, ast.Call) and _TESTS.fullmatch(_name(node.func)):
                given = (inner for each in (*node.args, *node.keywords) for inner in ast.walk(each))
                known = {training.get(_name(inner)) for inner in given} - {None}
                call = ast.get_source_segment(cell.source, node) or _name(node.func)
                calls += [(at, " ".join(call.split())[:200], known == {True})] * bool(known)
    calls = [call for call in calls if call[0] == run.epochs[0].cell] or calls
    found = [f"cell {at}: {call}" for at, call, leak in calls if leak]
    if run.epochs[0].images != 60_000 and len(found) < len(calls):
        return []  # both are tested, and both lines shown
    return [f"the test loader is the training data: {leak}" for leak in found[:1]]


def _is_training_data(value: ast.expr, training: dict[str, bool | None]) -> bool | None:
    """Whether a value is training data; None if unknown, as for a part of it that is held out."""
    if not isinstance(value, ast.Call):
        return training.get(_name(value))
    given = dict(enumerate(value.args)) | {word.arg: word.value for word in value.keywords}
    if _DATA.fullmatch(_name(value.func)):
        default = given.get(None, ast.Constant(True))  # **options may say it
        train = given.get("train", given.get(1, default))
        return train.value if isinstance(train, ast.Constant) else None
    if _name(value.func) == "DataLoader" and not given.keys() & {"sampler", "batch_sampler"}:
        return _is_training_data(given.get("dataset", given.get(0)), training)
    return None
