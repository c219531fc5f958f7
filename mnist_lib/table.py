"""Tables as text."""


def lay_out(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Rows as lines of aligned columns, a rule under the first: `left` columns to the left, the
    others to the right. The rule is the second line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = (c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(cells))
        lines.append("  ".join(padded).rstrip())
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [lines[0], rule, *lines[1:]]
