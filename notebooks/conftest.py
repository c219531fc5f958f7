"""nbval: what goes to stderr (progress bars, warnings of other packages) is not a result, nor is a
picture's HTML, of which the alternative text is compared, and a table's, which is compared as text;
and a notebook that is compared trains anew, in a folder of its own.
"""

import os
import tempfile

_runs = tempfile.TemporaryDirectory(prefix="mnist_runs-")  # gone when pytest ends
os.environ["MNIST_RUNS"] = _runs.name


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "text/html")
