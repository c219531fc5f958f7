"""nbval: what goes to stderr (progress bars, other packages' warnings) is not compared. HTML is not
either: a picture's alternative text and a table's text are compared instead. A notebook that is
compared trains anew, in a folder of its own.
"""

import os
import tempfile

_runs = tempfile.TemporaryDirectory(prefix="mnist_runs-")  # gone when pytest ends
os.environ["MNIST_RUNS"] = _runs.name


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "text/html")
