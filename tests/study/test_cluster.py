"""Studies on a Dask cluster: a scheduler and two workers, processes of this machine."""

import contextlib
import json
import os
import sys
from functools import partial

import pytest

from mnist_lib import get_recipe, load_study
from mnist_lib.base.errors import ParameterError, RunError
from mnist_lib.study.studies import study
from tests.conftest import ROOT, wait_for, write
from tests.runs.killing import FewImages, die
from tests.study.test_studies import losses, mnist, path  # noqa: F401 (two fixtures)

pytest.importorskip("distributed", reason="an extra: pip install '.[dask]'")
RECIPES = [get_recipe("assignment", epochs=2)]


def die_once(killed):
    """The first process that comes here is killed, and leaves the file `killed`."""
    with contextlib.suppress(FileExistsError):
        killed.touch(exist_ok=False)
        die()


@pytest.fixture
def cluster(tmp_path, start):
    """Starts a scheduler and workers, each of so many threads; `bare` ones have no mnist_lib."""
    file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    write(tmp_path / "bare", {"mnist_lib.py": b"raise ModuleNotFoundError('no mnist_lib')"})

    def make(*threads: int, bare: str = "") -> str:
        def command(name, *args):
            common = ["--scheduler-file", str(file), "--no-dashboard"]
            flag = "-m" if name == bare else "-Pm"  # as Dask's command, without the current folder
            cli = [sys.executable, flag, f"distributed.cli.{name}", *common, *args]
            start(cli, cwd=tmp_path / ("bare" if name == bare else ""), env=environment)

        command("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_for(file)
        for number in threads:
            command("dask_worker", "--no-nanny", "--nthreads", str(number))
        return json.loads(file.read_text())["address"]

    return make


@pytest.mark.usefixtures("my_nets")
def test_a_cluster_makes_the_same_records_though_a_worker_is_killed(path, mnist, cluster):  # noqa: F811
    recipes = [*RECIPES, get_recipe("faster", epochs=1, net="my_nets:TinyNet")]
    here = study(path.with_stem("here"), recipes, [2, 3], 2, data_dir=mnist)
    killed = path.with_name("killed")
    there = FewImages(mnist.folder, {3: partial(die_once, killed)})
    there = study(path, recipes, [2, 3], data_dir=there, scheduler=cluster(1, 1))
    assert killed.exists()
    assert list(map(losses, there)) == list(map(losses, here))
    for run in (*there, *here):
        del run.record["memory"]
    assert [run.record for run in there] == [run.record for run in here]
    assert sorted(map(losses, load_study(path))) == sorted(map(losses, here))


def test_a_worker_of_several_threads_is_refused(path, cluster):  # noqa: F811
    with pytest.raises(RunError, match=r"has 2 threads, .*: start it with --nthreads 1"):
        study(path, RECIPES, [0], scheduler=cluster(2))


@pytest.mark.parametrize("bare", ["dask_scheduler", "dask_worker"])
def test_a_cluster_without_mnist_lib_is_one_sentence(path, cluster, bare):  # noqa: F811
    """Not a wait for ever, also if the first worker comes later than the study."""
    said = r"install mnist_lib \S+, .*: an import at \S+ gave ModuleNotFoundError\('no mnist_lib'\)"
    with pytest.raises(RunError, match=said):
        study(path, RECIPES, [0], scheduler=cluster(1, bare=bare))


def test_no_scheduler_is_one_sentence(path):  # noqa: F811
    with pytest.raises(RunError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        study(path, RECIPES, [0], scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ParameterError, match="processes are of this machine"):
        study(path, RECIPES, [0], 2, scheduler="tcp://127.0.0.1:9")
