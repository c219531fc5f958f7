"""Tables as a terminal, a notebook and a README show them; means with their spread."""

import dataclasses
import html
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .history import History, check_history
from .recipe import RECIPES, Recipe, check_recipe


def lay_out(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Rows as lines of aligned columns: `left` columns to the left, the others to the right.

    The first row is the head. The second line is a rule.
    """
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
    """Rows of text; the keys of the first are the head, and `left` columns stand to the left.

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
    """As in `99.488 ± 0.036`; of a single value, that alone."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def standard_error(values: list[float]) -> float | None:
    """Of the mean of independent values; None for fewer than two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def mean_and_error(values: Iterable[float], digits: int = 3) -> str:
    """A mean difference and its standard error, as in `-0.032 ± 0.016`; of one value, itself."""
    values = list(values)
    error = standard_error(values)
    spread = "" if error is None else f" ± {error:.{digits}f}"
    return f"{statistics.fmean(values):+.{digits}f}{spread}"


def epochs_table(history: History) -> Table:
    """One row an epoch: accuracy in training and on the test images, test loss."""
    check_history(history)
    recipe, images = history.recipe, history.record.get("train_images")
    rows = []
    for epoch in history:
        share = ""
        if recipe and images and epoch.train_correct is not None:
            trained = recipe.epoch_images(epoch.epoch, images)
            share = f"{100 * epoch.train_correct / trained:.2f}"
        rows.append(
            {
                "epoch": f"{epoch.epoch} of {recipe.epochs if recipe else len(history)}",
                "training %": share,
                "test %": f"{epoch.accuracy:.2f}",
                "test loss": f"{epoch.test_loss:.4f}",
            }
        )
    return Table(rows)


# Why a recipe has a field, for `recipe_table`.
REASONS = {
    "epochs": "until it no longer gains",
    "batch_size": "more images a step: fewer steps, each less noisy",
    "learning_rate": "the schedule's peak",
    "optimizer": "the rule of a step",
    "momentum": "share of the last step that goes on",
    "schedule": "up, then down to nothing: the end is steady",
    "warm_up": "share of the steps up to the peak",
    "nesterov": "momentum that looks ahead",
    "weight_decay": "pulls weights towards zero",
    "rotation": "degrees: turned digits are the same digits",
    "shift": "pixels",
    "scale": "share of the size",
    "averaging": "the average of the weights is steadier than the last ones",
    "first": "share of the images in the first epoch",
    "hardest": "share of the images after it: those that still teach",
    "label_smoothing": "nobody is quite sure of the hardest images' labels",
    "crop": "pixels: the rim is empty, and a third of the work",
    "net": "another small net",
    "views": "of each test image, moved as in training: their mean errs less",
}


def recipe_table(recipe: Recipe) -> Table:
    """The assignment's recipe beside another, field by field, with a reason for each."""
    check_recipe(recipe)
    theirs, ours = (dataclasses.asdict(r) for r in (RECIPES["assignment"], recipe))
    return Table(
        [
            {
                "": field.replace("_", " "),
                "the assignment": f"{theirs[field]}",
                recipe.name: f"{ours[field]}",
                "why": reason,
            }
            for field, reason in REASONS.items()
        ],
        left=4,
    )
