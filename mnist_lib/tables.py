"""Tables for a terminal, a notebook and a README; means with their spread."""

import html
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


def lay_out(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Rows as aligned lines, the first above a rule; `left` columns are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = (c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(cells))
        lines.append("  ".join(padded).rstrip())
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [lines[0], rule, *lines[1:]]


@dataclass(frozen=True)
class Table:
    """Rows of text by column, the first `left` columns left-aligned.

    str() is for a terminal, `markdown` for a README; a notebook shows HTML.
    """

    rows: list[dict[str, str]]
    left: int = 1

    def __str__(self):
        return "\n".join(lay_out([tuple(self.rows[0]), *map(_values, self.rows)], self.left))

    def markdown(self) -> str:
        """The table in Markdown."""
        head = tuple(self.rows[0])
        rule = tuple("---" if n < self.left else "---:" for n in range(len(head)))
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *map(_values, self.rows)))

    def _repr_html_(self):
        lines = []
        for tag, row in (("th", tuple(self.rows[0])), *(("td", _values(r)) for r in self.rows)):
            cells = (
                f'<{tag} style="text-align: {"left" if n < self.left else "right"}">'
                f"{html.escape(cell)}</{tag}>"
                for n, cell in enumerate(row)
            )
            lines.append(f"<tr>{''.join(cells)}</tr>")
        return f"<table>{''.join(lines)}</table>"


def _values(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row.values())


def mean_and_sd(values: Iterable[float], digits: int = 3) -> str:
    """Mean ± sd as in `99.488 ± 0.036`; a single value stands alone."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def standard_error(values: list[float]) -> float | None:
    """The standard error of the mean of independent values; None for fewer than two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def mean_and_error(values: Iterable[float], digits: int = 3) -> str:
    """A mean difference ± its standard error, as in `-0.032 ± 0.016`; one value stands alone."""
    values = list(values)
    error = standard_error(values)
    spread = "" if error is None else f" ± {error:.{digits}f}"
    return f"{statistics.fmean(values):+.{digits}f}{spread}"
