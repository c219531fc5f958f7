"""What make does with the notebooks: run, colab, draw, record, tables."""

import argparse
import base64
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click
import nbformat
import report
from evidence import RECORDS, ROOT
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from papermill import inspect_notebook
from papermill.cli import papermill as papermill_command
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError

from mnist_lib import check_run, load_history, load_mnist, pretrained
from mnist_lib.base.errors import exit_in_a_sentence, nearest
from mnist_lib.base.files import HISTORY, write_file
from mnist_lib.digits import drawing

NOTEBOOK = ROOT / "notebooks" / "mnist_99_44.ipynb"
INSIDE = ROOT / "notebooks" / "inside_the_net.ipynb"
REPORTS = [*(ROOT / "notebooks" / name for name in ("seeds.ipynb", "search.ipynb")), INSIDE]
SINGLE = (NOTEBOOK, INSIDE)  # written as single files, too
SETUP = "setup"  # id of the notebook's first code cell

CARRIED = """\
# This file carries the project's library and figures, in a wheel; it needs no repository.
import base64
import io
import sys
import tempfile
import zipfile

WHEEL = "{wheel}"
library = tempfile.mkdtemp(prefix="mnist_lib-")
zipfile.ZipFile(io.BytesIO(base64.b64decode(WHEEL))).extractall(library)
sys.path.insert(0, library)
"""


class Killed(Exception):
    """The notebook's process was killed."""


class Live(NBClientEngine):
    """papermill's own engine, but for what a terminal is to show.

    The cells' stdout and stderr come as they print, their tables as text; the kernel's own log,
    with its alarms, does not. A parameter that the notebook does not have is refused.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        known = list(inspect_notebook(str(NOTEBOOK)))
        for name in nb_man.nb.metadata.papermill.parameters:
            if name not in known:
                raise PapermillException(
                    f"the notebook has no parameter {name!r}{nearest(name, known)}; it has "
                    f"{', '.join(known)}"
                )
        options |= {"stdout_file": sys.stdout, "stderr_file": sys.stderr}
        options |= {"extra_arguments": ["--log-level=CRITICAL"], "on_cell_executed": print_tables}
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        except DeadKernelError:  # which papermill answers with a traceback
            raise Killed from None


def print_tables(cell, **_) -> None:
    """Print the text of what a cell's last line gives."""
    for output in cell.outputs:
        if output.output_type == "execute_result":
            print(output.data["text/plain"], flush=True)


def run(args: list[str]) -> Path:
    """Run papermill with these arguments, live in the terminal; returns the notebook's path.

    The executed notebook is written into the run's folder at the very end. If a cell fails, the
    program ends with its error in a sentence, and an earlier notebook in that folder stays.
    """
    for refused in ("--prepare-only", "--cwd", "--version", "--help-notebook"):
        if refused in (word.partition("=")[0] for word in args):
            sys.exit(f"make run takes no {refused}; papermill itself does")
    papermill_engines.register("live", Live)
    # After Ctrl-C it logs the tracebacks of cells that nobody waits for any more.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as aside:
        part = Path(aside) / NOTEBOOK.name
        quiet = ["--no-progress-bar", "--log-level", "ERROR", "--engine", "live"]
        try:
            papermill_command.main([str(NOTEBOOK), str(part), *quiet, *args], standalone_mode=False)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(_stopped(part))
        except PapermillExecutionError as error:
            sys.exit(f"{error.ename}: {error.evalue}")
        except Killed:
            sys.exit(
                "the notebook's process was killed, perhaps for want of memory; the run's folder "
                "keeps its whole epochs: run again, with resume, to go on"
            )
        except Exception as error:  # of papermill's arguments: files, YAML, kernels
            said = str(getattr(error, "message", error)).strip() or type(error).__name__
            sys.exit(f"papermill: {' '.join(said.split())}")
        notebook = nbformat.read(part, as_version=4)
    settle(notebook)
    target = _kept_in(notebook) / NOTEBOOK.name
    write_file(target, lambda aside: nbformat.write(notebook, aside))
    return target


def _kept_in(notebook) -> Path | None:
    """The run's folder, from the executed notebook's metadata; None if it did not get so far."""
    outputs = _cell(notebook, "load").outputs
    folders = [output.metadata["run_dir"] for output in outputs if output.get("metadata")]
    return Path(folders[0]) if folders else None


def _stopped(part: Path) -> int | str:
    """How to end after Ctrl-C: in a sentence, unless a cell has said it in the notebook `part`.

    What a cell prints last is lost if its kernel ends before it is read.
    """
    notebook = nbformat.read(part, as_version=4) if part.exists() else None
    if notebook and "stopped; " in nbformat.writes(notebook):
        return 1
    folder = _kept_in(notebook) if notebook else None
    if folder is None or not (folder / HISTORY).exists():
        return "stopped; the run's folder keeps its whole epochs: run again"
    epochs = len(load_history(folder))
    return f"stopped; epochs 1 to {epochs} are kept in {folder}: run again, with resume, to go on"


def make_variables() -> list[str]:
    """Parameters given to make, as in `make run recipe=fast`, as papermill's arguments."""
    flags, dashes, given = os.environ.get("MAKEFLAGS", "").partition("-- ")
    given = given if dashes else flags  # macOS's make 3.81 writes no dashes if there are no flags
    words = re.findall(r"(?:\\.|[^\\ ])+", given)  # make puts a backslash before a space
    words = [re.sub(r"\\(.)", r"\1", word) for word in words if word[0] != "-"]
    pairs = [word.split("=", 1) for word in words if "=" in word]
    return [
        word
        for pair in pairs
        if pair[0] not in ("ARGS", "PYTHON", "VENV")
        for word in ("-p", *pair)
    ]


def colab(source: Path = NOTEBOOK, dist: Path = ROOT / "dist") -> Path:
    """Write a notebook, without outputs, with library and figures in its first code cell.

    That cell is folded, in Colab and in JupyterLab. Links lead to the notebooks written beside it.
    """
    with tempfile.TemporaryDirectory() as work:
        # From a copy: building leaves folders of its own beside the sources.
        for name in ("pyproject.toml", "requirements.txt", "README.md"):
            shutil.copy(ROOT / name, work)
        shutil.copytree(
            ROOT / "mnist_lib", f"{work}/mnist_lib", ignore=shutil.ignore_patterns("__pycache__")
        )
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", f"{work}/dist", work],
            check=True,
        )
        (wheel,) = Path(work, "dist").glob("*.whl")
        with zipfile.ZipFile(wheel, "a") as carried:  # as in a checkout
            for name in ("plots.py", "shown.py", "inside.py"):
                carried.write(ROOT / "notebooks" / name, f"notebooks/{name}")
        text = base64.b64encode(wheel.read_bytes()).decode()
    notebook = nbformat.read(source, as_version=4)
    cell = _cell(notebook, SETUP)
    title, rest = cell.source.split("\n", 1)
    cell.source = f"{title}\n{CARRIED.format(wheel=text)}\n{rest}"
    cell.metadata["jupyter"] = {"source_hidden": True}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = re.sub(r"\[(\w+)\.ipynb\]\(\1\.ipynb\)", _link, cell.source)
    target = dist / f"{source.stem}_colab.ipynb"
    dist.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    return target


def _link(found: re.Match) -> str:
    """A link to a notebook's single file or, if it has none, the place of the notebook."""
    single = f"{found[1]}_colab.ipynb"
    there = found[1] in (path.stem for path in SINGLE)
    return f"[{single}]({single})" if there else f"`notebooks/{found[1]}.ipynb` of the project"


def draw(weights: str, target: Path = ROOT / "dist" / "draw.html") -> Path:
    """Write the page to draw a digit on, with the weights that `pretrained` has by this name."""
    page = drawing.page(pretrained(weights), weights)
    write_file(target, lambda path: path.write_text(page, "utf-8"))
    return target


def record(root: Path = ROOT) -> Path:
    """Execute the committed notebooks in place on MNIST; keep the main one's run in `records`."""
    run, main = root / "runs" / "assignment-seed0", root / "notebooks" / NOTEBOOK.name
    notebook = nbformat.read(main, as_version=4)
    os.environ.pop("MNIST_RUNS", None)
    load_mnist(source="mnist")  # or fail now, not after training on the sample
    shutil.rmtree(run, ignore_errors=True)  # train anew
    execute(notebook)
    shutil.copy(run / "history.json", RECORDS / "notebook.jsonl")
    report.write()
    # This cell compares the run with the recorded one, which it has just become.
    (checked,) = _cell(notebook, "checks").outputs
    checked.text = check_run(load_history(run)) + "\n"
    nbformat.write(notebook, main)
    for path in REPORTS:
        notebook = nbformat.read(path, as_version=4)
        execute(notebook)
        nbformat.write(notebook, path)
    return run


def execute(notebook) -> None:
    """Run a notebook's cells in its own folder; leave its outputs settled."""
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=None, record_timing=False, resources=resources).execute()
    settle(notebook)
    notebook.metadata.language_info = {"name": "python"}  # not the version of this machine


def settle(notebook) -> None:
    """Reduce a notebook's outputs to what a terminal would show in the end.

    Neighbouring streams become one; a line redrawn by carriage returns keeps only its last
    state. (nbclient's own `coalesce_streams` would move all of stderr behind all of stdout.)
    """
    for cell in notebook.cells:
        merged = []
        for output in cell.get("outputs", []):
            last = merged[-1] if merged else None
            stream = last and output.output_type == last.output_type == "stream"
            if stream and output.name == last.name:
                last.text += output.text
            else:
                merged.append(output)
        for output in merged:
            if output.output_type == "stream":
                output.text = re.sub(r"[^\n]*\r(?=[^\n])", "", output.text)
        if cell.cell_type == "code":
            cell.outputs = merged


def _cell(notebook, name: str):
    return next(cell for cell in notebook.cells if cell.id == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("run", "colab", "draw", "record", "tables"))
    parser.add_argument("--weights", default="steady", help="to draw: a recipe or a run's folder")
    args, parameters = parser.parse_known_args()
    given = make_variables()
    others = [*parameters, *(name for name in given[1::3] if name != "weights")]
    if others and args.task != "run":
        parser.error(f"{args.task} takes no {others[0]!r}")
    with exit_in_a_sentence(f"make {args.task}"):
        if args.task == "run":
            print(f"wrote {run([*given, *parameters])}")
        elif args.task == "colab":
            for notebook in SINGLE:
                written = colab(notebook).relative_to(ROOT)
                print(f"wrote {written}; upload it to Colab and choose Run all")
        elif args.task == "draw":
            print(f"wrote {draw(args.weights).relative_to(ROOT)}; open it in a browser")
        elif args.task == "record":
            print(f"executed {NOTEBOOK.relative_to(ROOT)}; its run is {record().relative_to(ROOT)}")
        else:
            print("wrote the tables of", *(path.relative_to(ROOT) for path in report.write()))


if __name__ == "__main__":
    main()
