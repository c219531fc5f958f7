"""Tables for a terminal, a notebook and a README; means with their spread."""

import html
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text by column, `left` columns left-aligned: as text and HTML."""

    rows: list[dict[str, str]]
    left: int = 1

    def cells(self) -> list[tuple[str, ...]]:
        """The texts, row by row; first the heads of the columns."""
        return [tuple(self.rows[0]), *(tuple(row.values()) for row in self.rows)]

    def __str__(self):
        rows = self.cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        sides = ("<" if n < self.left else ">" for n in range(len(widths)))
        line = "  ".join(f"{{:{side}{w}}}" for side, w in zip(sides, widths, strict=True))
        head, *body = [line.format(*row).rstrip() for row in rows]
        return "\n".join([head, "-" * len(line.format(*rows[0])), *body])

    __repr__ = __str__  # what a notebook run in a terminal shows

    def _repr_html_(self):
        lines = ""
        for tag, row in zip(["th"] + ["td"] * len(self.rows), self.cells(), strict=True):
            lines += "<tr>"
            for n, cell in enumerate(row):
                side = "left" if n < self.left else "right"
                lines += f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
            lines += "</tr>"
        return f'<div style="overflow-x: auto"><table>{lines}</table></div>'


def mean_and_sd(values: Iterable[float], digits: int = 3) -> str:
    """Mean ± sd as in `99.488 ± 0.036`; a single value has no sd."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def standard_error(values: list[float]) -> float | None:
    """The standard error of the mean of independent values; None for fewer than two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def mean_and_error(values: Iterable[float], digits: int = 3) -> str:
    """Mean difference ± standard error as in `-0.032 ± 0.016`; a single value has no error."""
    error = standard_error(values := list(values))
    spread = "" if error is None else f" ± {error:.{digits}f}"
    return f"{round(statistics.fmean(values), digits) + 0.0:+.{digits}f}{spread}"  # no -0.000


def count_and_interval(count: int, total: int) -> str:
    """A count and the 95% interval of its share, as in `9 of 10 (55 to 100%)`."""
    low, high = share_interval(count, total)
    return f"{count} of {total} ({100 * low:.0f} to {high:.0%})"


def share_interval(count: int, total: int) -> tuple[float, float]:
    """The exact 95% interval of a share (Clopper and Pearson, Biometrika 1934): its two ends."""
    from scipy.special import betaincinv  # takes long to import

    low = betaincinv(count, total - count + 1, 0.025) if count else 0.0
    high = betaincinv(count + 1, total - count, 0.975) if count < total else 1.0
    return low, high
