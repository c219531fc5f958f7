"""The notebooks' workshop: `make run`, Ctrl-C in it, `make record`, Colab's single file."""

import os
import shutil
import signal
import subprocess
import sys

import nbformat
import pytest
import tools
from nbclient.exceptions import DeadKernelError

import mnist_lib
from mnist_lib.files import held
from mnist_lib.history import save_history

from .conftest import wait_for
from .running import NOTEBOOK, QUICK, stdout
from .test_history import make

TOOLS = NOTEBOOK.parent / "tools.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "papermill", str(NOTEBOOK), "out.ipynb"], "Aborted!"),
        ([str(TOOLS), "run"], "\nstopped; epochs 1 to "),
    ],
)
def test_control_c_in_papermill(tmp_path, sample, words, said, start):
    """Both write what there is, leave no kernel behind, and go on when they are run again."""
    parameters = {"data_source": "sample", "train_images": 500, "recipe": "steady", "epochs": 40}
    parameters["run_dir"] = str(tmp_path / "run")
    settings = [word for item in parameters.items() for word in ("-p", *map(str, item))]
    command = [sys.executable, *words, *settings]
    process = start(command, cwd=tmp_path)
    wait_for(tmp_path / "run" / "checkpoint-3.pt")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert said in err
    assert "Traceback" not in err or "papermill" in words
    assert process.returncode == 1
    done = len(mnist_lib.load_history(tmp_path / "run"))
    assert 2 <= done < 40
    with held(tmp_path / "run"):
        pass  # nobody trains there any more
    if "papermill" in words:
        stopped = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        assert "CPU threads" in stdout(stopped, "load")
    few, recipe = sample.take(500), mnist_lib.get_recipe("steady", epochs=40)
    mnist_lib.set_seed(0)
    net = mnist_lib.make_net(recipe)
    history = mnist_lib.train(net, few, recipe, folder=tmp_path / "run", verbose=False)
    assert len(history) == 40
    mnist_lib.set_seed(0)
    whole = mnist_lib.train(mnist_lib.make_net(recipe), few, recipe, verbose=False)
    assert [epoch.test_loss for epoch in history] == [epoch.test_loss for epoch in whole]


@pytest.mark.parametrize("epochs", [0, 3])
def test_control_c_when_the_cells_own_word_is_lost(tmp_path, monkeypatch, epochs):
    """The kernel may end before it is read: the sentence then names what the folder has."""

    def stopped(args, **options):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        load = next(cell for cell in notebook.cells if cell.id == "load")
        load.outputs = [nbformat.v4.new_output("stream", text=f"The run is kept in {tmp_path}\n")]
        nbformat.write(notebook, args[1])
        raise KeyboardInterrupt

    if epochs:
        save_history(tmp_path / "history.json", make(*[9000] * epochs))
    monkeypatch.setattr(tools.papermill_command, "main", stopped)
    kept = f"epochs 1 to 3 are kept in {tmp_path}" if epochs else "the run's folder keeps its whole"
    with pytest.raises(SystemExit, match=f"^stopped; {kept}"):
        tools.run([])


def test_make_runs_command_is_live_and_refuses_in_one_line(tmp_path, capfd):
    words = ["-p", "run_dir", str(tmp_path / "run"), "-y", str(QUICK)]
    target = tools.run(words)
    assert target.resolve() == tmp_path / "run" / NOTEBOOK.name
    shown, progress = capfd.readouterr()
    assert progress.startswith("\repoch 1 of 2:   0%|"), "no alarm before it"
    assert "epoch 2 of 2 loss=" in progress
    assert "Verdict on the SAMPLE" in shown
    before = target.read_bytes()
    for bad, message in (
        (["-p", "epochs", "0"], "ParameterError: epochs must be a whole number"),
        (["-p", "resume", "no"], "ParameterError: resume must be True or False, got 'no'"),
        (["-y", "{epoch: 3}"], "papermill: the notebook has no parameter 'epoch'; did you mean "),
        (["--no-such-option"], "papermill: No such option"),
    ):
        with pytest.raises(SystemExit) as caught:
            tools.run([*words, *bad])
        assert str(caught.value.code).startswith(message)
        assert "\n" not in caught.value.code
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", []),
        ("w", []),
        ("kw -- epochs=1 ARGS=-p\\ seed\\ 3 PYTHON=python3", ["-p", "epochs", "1"]),
        (" -- run_dir=a\\ b recipe=fast", ["-p", "run_dir", "a b", "-p", "recipe", "fast"]),
        (" -- run_dir=it's", ["-p", "run_dir", "it's"]),
    ],
)
def test_parameters_may_be_makes_variables(monkeypatch, flags, words):
    monkeypatch.setenv("MAKEFLAGS", flags)
    assert tools.make_variables() == words


def test_make_hands_them_on_from_any_folder(tmp_path):
    """With `make -C`, a run_dir is relative to the folder it was called from."""
    (tmp_path / "checkout" / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(TOOLS.parents[1] / name, tmp_path / "checkout")
    (tmp_path / "checkout" / ".venv" / "ready").touch()
    python = tmp_path / "checkout" / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\npwd; echo $MAKEFLAGS; echo $@\n")
    python.chmod(0o755)
    variables = ["epochs=1", "ARGS=-p seed 3"]
    for command, at in ((["make"], "checkout"), (["make", "-C", "checkout"], ".")):
        result = subprocess.run(
            [*command, "run", *variables],
            cwd=tmp_path / at,
            env=os.environ | {"PWD": str(tmp_path / at), "MAKEFLAGS": ""},
            capture_output=True,
            text=True,
        )
        assert str((tmp_path / at).resolve()) in result.stdout.splitlines(), result.stderr
        assert "epochs=1" in result.stdout
        assert result.stdout.count("run -p seed 3") == 1


def test_a_killed_kernel_is_one_sentence(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(tools.papermill_command, "main", killed)
    with pytest.raises(SystemExit, match=r"the notebook's process was killed, .*: run again"):
        tools.run([])


def test_record_takes_no_old_run(tmp_path, monkeypatch):
    """Where the sample took MNIST's place, the run of an earlier day is not the notebook's."""

    class Client:
        def __init__(self, *_, **__):
            pass

        def execute(self):
            pass

    records = tmp_path / "records"
    for name, value in (("ROOT", tmp_path), ("RECORDS", records), ("NotebookClient", Client)):
        monkeypatch.setattr(tools, name, value)
    monkeypatch.delenv("MNIST_RUNS", raising=False)  # which it takes out of the environment
    old = tmp_path / "runs" / "assignment-seed0"
    old.mkdir(parents=True)
    (old / "history.json").write_text("of an earlier day")
    committed = NOTEBOOK.read_bytes()
    with pytest.raises(FileNotFoundError):
        tools.record()
    assert NOTEBOOK.read_bytes() == committed
    assert not records.exists()


def test_single_file_runs_in_an_empty_folder(tmp_path):
    """As in Colab: no repository, no mnist_lib to import, a google.colab to be found."""
    single = tools.colab(dist=tmp_path)
    empty = tmp_path / "empty"
    stand_in = tmp_path / "site" / "google" / "colab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("")
    kernel = tmp_path / "site" / "sitecustomize.py"
    # Loaded by the kernel's interpreter at its start, before the editable install can be used.
    kernel.write_text(
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mnist_lib' and not any('mnist_lib-' in p for p in sys.path):\n"
        "            raise ModuleNotFoundError('mnist_lib is hidden')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import google.colab\n"
    )
    environment = os.environ | {"PYTHONPATH": str(kernel.parent)}
    blind = subprocess.run(
        [sys.executable, "-c", "import mnist_lib"], env=environment, cwd=tmp_path
    )
    assert blind.returncode != 0, "the stand-in hides the library"
    empty.mkdir()
    words = [sys.executable, "-m", "papermill", str(single), "out.ipynb", "--no-progress-bar"]
    for name, value in QUICK.items():
        words += ["-p", name, str(value)]
    result = subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    executed = nbformat.read(empty / "out.ipynb", as_version=4)
    assert "Verdict on the SAMPLE" in stdout(executed)
    assert (empty / "runs").is_dir()


def test_single_file_carries_no_outputs(tmp_path):
    single = nbformat.read(tools.colab(dist=tmp_path), as_version=4)
    assert all(not cell.outputs for cell in single.cells if cell.cell_type == "code")
    assert single.metadata.accelerator == "GPU"


def test_make_run_leaves_the_committed_parameters():
    """`make record` sets resume to False while it runs, by this text."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == "parameters")
    assert "resume: bool = True" in cell.source
