"""Reads executed notebooks: the runs in their outputs, and what their source says of the data."""

import ast
import contextlib
import json
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from ..base.errors import DataError
from ..base.files import as_path, read_text
from .parse import LoggedRun, read_runs

LIMIT = 100_000_000  # bytes of a file: most of a notebook is pictures
OTHERS = {"CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST", "SVHN", "USPS"}
_TABLE = re.compile(r"total param(?:eter)?s: ?(\d[\d,]{0,15})", re.I)
_CLASS = re.compile(r"^class +\w+ *\([^)\n]*Module", re.M)
_TESTING = re.compile(r"(?:^|[._])(?:test|val|eval)(?!.*train)")  # a function's or variable's name


@dataclass
class Submission:
    """A log's or notebook's outputs, by code cell, and its code: execution counts and sources."""

    shown: dict[int, str]
    counts: dict[int, int] = field(default_factory=dict)
    source: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        self.runs, self.unread = read_runs(self.shown)
        self.tables = {at: _TABLE.findall(text) for at, text in self.shown.items()}
        names, self.tests = _follow_data(self.source)
        self.on_mnist = not names or "MNIST" in names
        if not self.on_mnist:
            self.unread += [f"cell {at}: {name}, not MNIST" for name, at in names.items()]

    def parameters(self, run: LoggedRun) -> tuple[int | str, list[str]]:
        """The number in the table before the run, "?" or "stale"; and in that case why."""
        cell = run.epochs[0].cell
        table = max((at for at, found in self.tables.items() if found and at <= cell), default=None)
        if table is None or (table == cell and len(set(self.tables[table])) > 1):
            return "?", []
        counts = self.counts
        if not (counts.get(table) and counts.get(cell)):  # some editors drop them
            counts = {at: at for at in counts}
        ends = sorted((counts.get(table, 0), counts.get(cell, 0)))
        for at, count in counts.items():
            if ends[0] < count < ends[1] and _CLASS.search(self.source[at]):
                why = f"cell {at}: the class was run again, after the table in cell {table}"
                return "stale", [f"parameters not of this run: {why}"]
        return int(self.tables[table][-1].replace(",", "")), []

    def leaks(self, run: LoggedRun) -> list[str]:
        """Whether the run is tested on its training data: the first call that says so."""
        mine = [test for test in self.tests if test[0] == run.epochs[0].cell] or self.tests
        leaks = [f"cell {at}: {call}" for at, call, leak in mine if leak]
        honest = run.epochs[0].images != 60_000 and len(leaks) < len(mine)
        found = [f"the test loader is the training data: {leak}" for leak in leaks]
        return found[: 0 if honest else 1]


def read_notebook(path: str | os.PathLike) -> list[LoggedRun]:
    """The runs in a notebook's outputs (.ipynb, nbformat 3 on), or in a log; nothing is executed.

    Raises RunError if the file cannot be read, DataError if it is not a notebook.
    """
    return read_submission(as_path("path", path)).runs


def read_submission(path: Path) -> Submission:
    """A notebook's or log's runs, what cannot be read in it, and what its source says."""
    if path.is_file() and (size := path.stat().st_size) > LIMIT:
        raise DataError(f"{path} has {size:,} bytes: more than {LIMIT:,} are not read")
    text = read_text(path)
    if path.suffix.lower() != ".ipynb":
        return Submission({0: text})
    try:
        notebook = json.loads(text)
        sheets = notebook.get("worksheets") or [notebook]  # nbformat 3 has them
        cells = enumerate((cell for sheet in sheets for cell in sheet["cells"]), 1)
        code = {at: cell for at, cell in cells if cell["cell_type"] == "code"}
        shown = {at: "\n".join(map(_shown, cell.get("outputs") or ())) for at, cell in code.items()}
        keys = "execution_count", "prompt_number"
        counts = {at: int(cell.get(keys[0], cell.get(keys[1])) or 0) for at, cell in code.items()}
        source = {at: "".join(cell.get("source", cell.get("input"))) for at, cell in code.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}, {str(error)[:80]}"
        raise DataError(f"{path} is not a notebook: {reason}") from None
    return Submission(shown, counts, source)


def _shown(output: dict) -> str:
    """The text of an output, or an error's name; each may be a list of lines."""
    data = output.get("data", output)
    texts = output.get("text"), data.get("text/markdown"), data.get("text/plain")
    return "".join(next(filter(None, texts), output.get("ename") or ""))


def _follow_data(source: dict[int, str]) -> tuple[dict[str, int], list[tuple[int, str, bool]]]:
    """The names of data sets, each with a cell, and the calls that test, following variables.

    Of a call, the cell, the text, and whether it is on training data.
    """
    names, tests, known = {}, [], {}

    def for_training(node: ast.expr) -> bool | None:
        if not isinstance(node, ast.Call):
            return known.get(ast.unparse(node))
        words = {word.arg: word.value for word in node.keywords}
        name = ast.unparse(node.func).rpartition(".")[2]
        if name == "DataLoader" and "sampler" not in words:
            return for_training(words.get("dataset") or node.args[0])
        if name not in {"MNIST", *OTHERS}:
            return None
        names[name] = at
        train = words.get("train") or (*node.args[1:], ast.Constant(True))[0]
        return train.value if isinstance(train, ast.Constant) else None

    for at, text in source.items():
        text = re.sub(r"(?m)^([ \t]*)[%!].*", r"\1pass", text[:100_000])
        errors = SyntaxError, ValueError, RecursionError, MemoryError, IndexError
        with contextlib.suppress(*errors), warnings.catch_warnings(action="ignore"):
            nodes = [node for node in ast.walk(ast.parse(text)) if hasattr(node, "lineno")]
            for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
                for to in node.targets if isinstance(node, ast.Assign) else ():
                    variables = getattr(to, "elts", [to])  # of a tuple, or the variable itself
                    values = getattr(node.value, "elts", [node.value] * len(variables))
                    pairs = zip(
                        map(ast.unparse, variables), map(for_training, values), strict=False
                    )
                    known |= dict(pairs)
                if not isinstance(node, ast.Call):
                    continue
                for given in (*node.args, *(word.value for word in node.keywords)):
                    name = "" if isinstance(given, ast.Call) else ast.unparse(given)
                    leak = for_training(given)
                    about = _TESTING.search(ast.unparse(node.func)) or _TESTING.search(name)
                    if about and leak is not None:
                        tests.append((at, ast.unparse(node)[:80], leak))
    return names, tests
