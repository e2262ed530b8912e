"""`edge-agent providers`: what can accelerate here, and by how much."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.commands.saying import AsJson, fail, screen
from agent.core.accelerators import CPU, PROVIDERS
from agent.worker import bench as benching
from agent.worker.making import VERSION, compiled_in
from agent.worker.providers import known

SCHEMA = 1


def providers(
    *,
    bench: Annotated[
        Path | None,
        typer.Option("--bench", help="Measure this model on each of them.", metavar="MODEL.onnx"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which execution providers start on this device, and with --bench how fast a model runs.

    Example: edge-agent providers --bench pump-anomaly/model.onnx
    """
    if bench is not None and not bench.is_file():
        fail(f"there is no model {bench}; name an .onnx file", code=2)
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    with console.status("asking onnxruntime") as status:
        here = known(compiled_in())
        for name, row_of in PROVIDERS.items():
            why = benching.probe(name) if name in here else f"comes with {row_of.install}"
            row = {"name": name, "works": not why, "why": why}
            if bench is not None and not why:
                status.update(Text(f"measuring {bench.name} on {name}"))
                row["bench"] = benching.apart(name, bench)
            rows.append(row)
    if as_json:
        document = {"schema": SCHEMA, "onnxruntime": VERSION, "providers": rows}
        typer.echo(json.dumps(document, indent=2))
    else:
        screen().print(_table(rows, bench))
    cpu = next(row for row in rows if row["name"] == CPU)
    if bench is not None and (why := cpu["bench"]["why"]):
        fail(f"{bench.name} does not run: {why}")


def _table(rows: list[dict[str, Any]], bench: Path | None) -> Table:
    title = f"onnxruntime {VERSION}" + (f", {bench.name}: p50 ms (× cpu)" if bench else "")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("provider")
    table.add_column("here")
    base: dict[str, Any] = {}
    if bench is not None:
        base = next(row for row in rows if row["name"] == CPU)["bench"].get("batches", {})
        for name in ("load ms", "MB", "max error"):
            table.add_column(name, justify="right")
        for batch in base:
            table.add_column(f"batch {batch}", justify="right")
    for row in rows:
        figures = row.get("bench", {})
        here = "yes" if row["works"] else row["why"]
        cells = [row["name"], figures.get("why") or here]
        if batches := figures.get("batches"):
            error = figures["error"]
            cells += [f"{figures['load_ms']:.1f}", f"{figures['memory_mb']:.0f}"]
            cells.append("" if error is None else f"{error:.1e}")
            for batch, cpu in base.items():
                p50 = batches[batch]["p50_ms"]
                cells.append(f"{p50:.3f} ({cpu['p50_ms'] / max(p50, 1e-6):.1f})")
        table.add_row(*cells)
    return table
