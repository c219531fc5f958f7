"""How the tests run the notebooks: with papermill, with nbval, and cell by cell in this process."""

import ast
import contextlib
import io
import os
import shutil
import subprocess
import sys

import papermill

from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "mnist_99_44.ipynb"
RECORDS = NOTEBOOK.parent / "records"
TOOLS = NOTEBOOK.parent / "scripts" / "tools.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(NOTEBOOK.parent)}  # as make runs its scripts
QUICK = {"data_source": "sample", "epochs": 2, "train_images": 500, "batch_size": 50}


def execute(notebook, folder, **parameters):
    """Run a notebook with papermill; the executed notebook. Its file is `out.ipynb` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = str(notebook), str(folder / "out.ipynb")
    return papermill.execute_notebook(*files, parameters, cwd=str(folder), progress_bar=False)


def execute_here(notebook, last=None, skip=(), **parameters):
    """Run a notebook's cells in this process, which starts no kernel; what each showed, by name.

    As with papermill, the parameters are set after the cell of that name. `last` is the last cell
    to run, if it is not the notebook's own; the cells in `skip` are left out.
    """
    names, printed = {}, {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id not in skip:
            lines = ast.parse(cell.source)
            shown = lines.body.pop() if isinstance(lines.body[-1], ast.Expr) else None
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(lines, cell.id, "exec"), names)
                if shown and (value := eval(ast.unparse(shown), names)) is not None:
                    print(value)
            printed[cell.id] = out.getvalue()
        if cell.id == "parameters":
            names |= parameters
        if cell.id == last:
            break
    return printed


def nbval(*notebooks):
    """Run notebooks of one folder against their outputs, beside the committed ones' conftest."""
    folder = notebooks[0].parent
    shutil.copy(NOTEBOOK.parent / "conftest.py", folder)
    words = [sys.executable, "-m", "pytest", "--nbval", "-v", "-p", "no:cacheprovider"]
    words += [notebook.name for notebook in notebooks]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def stdout(notebook, name=None):
    """What a notebook's cells (one cell) printed, and the text of what a last line gave."""
    return "".join(
        output.text if output.output_type == "stream" else f"{output.data['text/plain']}\n"
        for cell in notebook.cells
        if cell.cell_type == "code" and name in (None, cell.id)
        for output in cell.outputs
        if output.get("name") == "stdout" or output.output_type == "execute_result"
    )
