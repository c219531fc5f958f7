"""How the tests run the notebooks: with papermill, and against their own outputs with nbval."""

import shutil
import subprocess
import sys
from pathlib import Path

import papermill

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "mnist_99_44.ipynb"
INSIDE = NOTEBOOK.with_name("inside_the_net.ipynb")
RECORDS = NOTEBOOK.parent / "records"
QUICK = {"data_source": "sample", "epochs": 2, "train_images": 500, "batch_size": 50}
IGNORED = "nbval-ignore-output"


def execute(notebook, folder, **parameters):
    """Run a notebook with papermill; the executed notebook. Its file is `out.ipynb` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return papermill.execute_notebook(
        str(notebook),
        str(folder / "out.ipynb"),
        parameters={"run_dir": str(folder / "run")} | parameters,
        cwd=str(folder),
        progress_bar=False,
    )


def nbval(notebook):
    """Run a notebook against its own outputs, with the committed notebook's conftest beside it."""
    shutil.copy(NOTEBOOK.parent / "conftest.py", notebook.parent)
    words = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*words, notebook.name], cwd=notebook.parent, capture_output=True, text=True
    )


def stdout(notebook, name=None):
    """What a notebook's cells (one cell) printed."""
    return "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code" and name in (None, cell.id)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
