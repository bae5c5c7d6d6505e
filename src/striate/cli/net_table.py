"""A net's layers as tables for people, as Markdown, and as a document for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.models.receptive import Field
    from striate.models.summary import Summary
    from striate.models.table import LayerRow


@dataclass(frozen=True)
class Table:
    """Cells as text; the columns `right` hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]


def tables(summary: Summary) -> tuple[Table, Table]:
    """Return two tables of a net's layers: where sizes and parameters come from; what it costs and sees."""
    shapes: list[tuple[str, ...]] = []
    for row in summary.rows:
        first, *others = row.size_sums or ("",)
        count = f"{row.parameters:,}"
        shapes.append((row.name, row.kind, _shape(row.output_shape), first, count, row.parameter_sum))
        shapes += [("", "", "", other, "", "") for other in others]  # the sum of the columns, after that of the rows
    shapes.append(("in all", "", "", "", f"{summary.parameters:,}", ""))
    costs = [
        (row.name, _macs(row.macs), row.mac_sum, _percent(row.share), f"{row.memory:,}", *_field(row.field))
        for row in summary.rows
    ]
    costs.append(("in all", _macs(summary.macs, summary.macs_known), "", "", f"{summary.memory:,}", "", "", ""))
    return (
        Table(("layer", "kind", "output", "how its size comes about", "parameters", "which are"), shapes, (4,)),
        Table(
            ("layer", "MACs", "which are", "share", "bytes", "field", "stride", "padding"), costs, (1, 3, 4, 5, 6, 7)
        ),
    )


def legend(summary: Summary) -> list[str]:
    """Return the lines below the tables: what their words mean, and what stands out."""
    height, width = summary.input_shape[1:]
    lines = [
        "⌊ ⌋ rounds down. MACs: multiply-adds for one picture. bytes: the layer's output for one picture in float32, 0",
        "where it takes the place of its input. field: the pixels that one number of the output sees, height x width,",
        "as if the picture had no edge; (all): that is the whole picture. stride: pixels between the fields of two",
        "neighbours. padding: pixels by which the first field reaches over the edge.",
    ]
    if not summary.macs_known:
        unknown = ", ".join(row.name for row in summary.rows if row.macs is None)
        lines.append(
            f"MACs unknown: striate has no rule for what {unknown} multiplies; the others need {summary.macs:,}."
        )
    if any(row.field is None for row in summary.rows):
        lines.append("unknown: an operation there has no rule for what it sees.")
    last = summary.rows[-1].field if summary.rows else None
    if last is not None and last.stride is None and not last.whole:
        seen = _shape(last.seen)
        lines.append(f"The net's answer rests on {seen} of the {height}x{width} pixels: it does not read the others.")
    if summary.trainable != summary.parameters:
        lines.append(f"{summary.trainable:,} of the {summary.parameters:,} parameters are trained.")
    return lines


def as_document(summary: Summary) -> dict[str, Any]:
    """Return a net's layers and sums as plain values."""
    return {
        "input": list(summary.input_shape),
        "parameters": summary.parameters,
        "trainable": summary.trainable,
        "macs": summary.macs if summary.macs_known else None,
        "memory": summary.memory,
        "layers": [_layer(row) for row in summary.rows],
    }


def as_markdown(summary: Summary, title: str) -> str:
    """Return the tables in Markdown, with a title above and the legend below."""
    parts = [
        f"### {_escaped(title)}",
        *(_markdown_table(table) for table in tables(summary)),
        " ".join(legend(summary)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rules = ["---:" if i in table.right else "---" for i in range(len(table.columns))]
    rows = [table.columns, rules, *([_escaped(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _escaped(text: str) -> str:
    for mark in "\\|*_<`":
        text = text.replace(mark, "\\" + mark)
    return text


def _layer(row: LayerRow) -> dict[str, Any]:
    field = row.field
    return {
        "name": row.name,
        "kind": row.kind,
        "output_shape": list(row.output_shape),
        "size_sums": list(row.size_sums),
        "parameters": row.parameters,
        "parameter_sum": row.parameter_sum,
        "macs": row.macs,
        "mac_sum": row.mac_sum,
        "share": row.share,
        "memory": row.memory,
        "field": None
        if field is None
        else {
            "size": list(field.size),
            "stride": None if field.stride is None else list(field.stride),
            "padding": None if field.padding is None else list(field.padding),
            "seen": list(field.seen),
            "whole": field.whole,
        },
    }


def _field(field: Field | None) -> tuple[str, str, str]:
    if field is None:
        return "unknown", "", ""
    size = _shape(field.size) + (" (all)" if field.whole else "")
    return size, _pair(field.stride), _pair(field.padding)


def _pair(pair: tuple[float, float] | None) -> str:
    """Return a pair of lengths: one number where they agree, nothing where there is none."""
    if pair is None:
        return ""
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g}x{pair[1]:g}"


def _macs(number: int | None, known: bool = True) -> str:
    return "unknown" if number is None or not known else f"{number:,}"


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f} %" if share else ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
