"""nbval: what goes to stderr (progress bars, warnings of other packages) is not a result."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
