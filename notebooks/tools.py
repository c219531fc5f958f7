"""The notebook's workshop: `python notebooks/tools.py run | colab | links | record`."""

import argparse
import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from papermill.cli import papermill as papermill_command
from papermill.exceptions import PapermillException, PapermillExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "mnist_99_44.ipynb"
RECORDS = ROOT / "notebooks" / "records"
README = ROOT / "README.md"
SETUP = "setup"  # id of the notebook's first code cell

CARRIED = '''\
# This file carries the project's library inside, as a wheel; it needs no repository.
import base64
import os
import sys
import tempfile
from pathlib import Path

WHEEL = """
{wheel}
"""
wheel = Path(tempfile.mkdtemp()) / "{name}"
wheel.write_bytes(base64.b64decode(WHEEL))
sys.path.insert(0, str(wheel))
'''


def run(target: Path, words: list[str]) -> None:
    """What papermill does with these words, live in the terminal; `target` is written when done.

    Ends the program with the cell's own error in a sentence; what was at `target` then stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # No prefix of the library's own (`files.ASIDE`): a run in this very folder sweeps those.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".notebook-") as aside:
        part = str(Path(aside) / target.name)
        quiet = ["--no-progress-bar", "--log-level", "ERROR"]
        live = ["--stdout-file", "-", "--stderr-file", "-"]  # as the cells print
        try:
            papermill_command.main(
                [str(NOTEBOOK), part, *quiet, *live, *words], standalone_mode=False
            )
        except (KeyboardInterrupt, click.Abort):
            sys.exit(
                "stopped; the run's folder keeps its whole epochs: run again, with resume, to go on"
            )
        except PapermillExecutionError as error:
            sys.exit(f"{error.ename}: {error.evalue}")
        except DeadKernelError:
            sys.exit(
                "the notebook's process was killed, perhaps for want of memory; the run's folder "
                "keeps its whole epochs: run again, with resume, to go on"
            )
        except (click.ClickException, PapermillException) as error:
            sys.exit(f"papermill: {getattr(error, 'message', error)}")
        Path(part).replace(target)


def project_url(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """The repository's address, "" while it is not set."""
    urls = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"].get("urls", {})
    return urls.get("Repository", "").rstrip("/").removesuffix(".git")


def colab(target: Path = ROOT / "dist" / "mnist_99_44_colab.ipynb") -> Path:
    """Write the notebook, without outputs, with the library inside its first code cell."""
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
        text = base64.encodebytes(wheel.read_bytes()).decode().strip()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    _cell(notebook, SETUP).source = CARRIED.format(wheel=text, name=wheel.name).strip()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    return target


def links(url: str, readme: Path = README, path: Path = NOTEBOOK) -> None:
    """Write the repository's address into the notebook's first cell and the README's Colab line."""
    notebook = nbformat.read(path, as_version=4)
    cell = _cell(notebook, SETUP)
    cell.source = re.sub(r'(?m)^REPOSITORY = ".*?"', lambda _: f'REPOSITORY = "{url}"', cell.source)
    nbformat.write(notebook, path)
    text = readme.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- colab -->\n).*?(\n<!-- /colab -->)", re.DOTALL)
    readme.write_text(
        marked.sub(lambda match: match[1] + colab_line(url) + match[2], text), encoding="utf-8"
    )


def colab_line(url: str) -> str:
    """The README's way into Colab for a repository at `url`, or how to set it."""
    if not url:
        return (
            "From a repository: set `Repository` under `[project.urls]` in `pyproject.toml` to "
            "its GitHub address and run `make links`; the badge then appears here."
        )
    opened = "https://colab.research.google.com/github/" + url.removeprefix("https://github.com/")
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({badge})]({opened}/blob/main/notebooks/{NOTEBOOK.name})"


def record() -> Path:
    """Execute the committed notebook in place on MNIST; keep its run under `records`."""
    run = ROOT / "runs" / "logged-seed0"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = _cell(notebook, "parameters")
    committed = parameters.source
    parameters.source = committed.replace("resume: bool = True", "resume: bool = False")
    assert parameters.source != committed, "no cell with resume: bool = True"
    os.environ.pop("MNIST_RUNS", None)
    shutil.rmtree(run, ignore_errors=True)  # where the sample takes MNIST's place, there is none
    NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    parameters.source = committed
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = settled(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}  # not the version of this machine
    # Neither checkpoints nor what is hidden: only to go on with the run. First of all, since there
    # is no such run where MNIST was not found.
    ignore = shutil.ignore_patterns("checkpoint-*.pt", ".*")
    kept = shutil.copytree(run, RECORDS / run.name, ignore=ignore, dirs_exist_ok=True)
    nbformat.write(notebook, NOTEBOOK)
    return Path(kept)


def settled(outputs: list) -> list:
    """Outputs as a terminal would show them in the end: neighbouring streams as one, of a line
    redrawn by carriage returns only the last state. (nbclient's own `coalesce_streams` would move
    all of stderr behind all of stdout.)
    """
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?=[^\n])", "", output.text)
    return merged


def _cell(notebook, name: str):
    return next(cell for cell in notebook.cells if cell.id == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("run", "colab", "links", "record"))
    words, parameters = parser.parse_known_args()
    task = words.task
    if parameters and task != "run":
        parser.error(f"{task} takes no {parameters[0]!r}")
    if task == "run":
        target = ROOT / "runs" / NOTEBOOK.name
        run(target, parameters)
        print(f"wrote {target.relative_to(ROOT)}")
    elif task == "colab":
        print(f"wrote {colab().relative_to(ROOT)}; upload it to Colab and choose Run all")
    elif task == "links":
        url = project_url()
        if url and not url.startswith("https://github.com/"):
            sys.exit(f"pyproject.toml: Repository is {url!r}; Colab opens https://github.com/ only")
        links(url)
        print(f"links point to {url}" if url else "no project URL is set in pyproject.toml")
    else:
        print(f"executed {NOTEBOOK.relative_to(ROOT)}; kept {record().relative_to(ROOT)}")


if __name__ == "__main__":
    main()
