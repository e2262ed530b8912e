"""`edge-agent model`: author a package."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agent.adapters.files import read_folder
from agent.commands.logs import to_stderr
from agent.commands.saying import AsJson, ending, screen, usage
from agent.core import opsets
from agent.core.errors import MisfitError, RefusedError
from agent.core.manifest import MANIFEST
from agent.repository import authoring, samples

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The package's folder.", metavar="DIR")]


@app.callback()
def model() -> None:
    """Author a model package: init, build, verify, show."""
    to_stderr()


@app.command()
def init(
    model: Annotated[
        Path,
        typer.Argument(help="An .onnx file, or a folder with model.onnx.", metavar="FILE.onnx"),
    ],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="The new package's folder.")] = None,
    name: Annotated[str, typer.Option("--name", help="The model's name; else the file's.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a package folder out of an .onnx file, with a commented model.toml to go on from.

    Example: edge-agent model init pump-anomaly.onnx
    """
    with ending():
        folder = authoring.init(model, out, name=name)
        manifest = folder / MANIFEST
        if as_json:
            typer.echo(json.dumps({"schema": 1, "folder": str(folder), "manifest": str(manifest)}))
        else:
            typer.echo(manifest)
            _aside(f"read {manifest}, then run: edge-agent model build {folder}")


@app.command()
def build(
    folder: Folder,
    *,
    given: Annotated[
        Path | None,
        typer.Option("--samples", help="Golden inputs: .csv of readings, or .npz of tensors."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=10_000, help="How many golden samples.")
    ] = samples.COUNT,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of inputs that are made up.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check model.toml against the model, record golden outputs and measure what it needs.

    Example: edge-agent model build pump-anomaly --samples recording.csv
    """
    with ending():
        if given is not None and given.suffix.lower() not in (".csv", ".npz"):
            raise RefusedError(f"{given} is neither a .csv of readings nor an .npz of tensors")
        with Console(stderr=True).status("building") as status:
            built = authoring.build(folder, given=given, count=count, seed=seed, tell=status.update)
        _show_checked(built, "built", as_json=as_json)


@app.command()
def verify(
    folder: Folder,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="A runtime that is not here: windows-11, directml, ort-1.17, …; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything a device will check, on this machine; exit 1 and one sentence if not.

    With --target: whether another runtime takes it, by a table of versions; nothing is run.

    Example: edge-agent model verify pump-anomaly --target windows-11
    """
    with usage():
        targets = [opsets.target(name) for name in target or ()]
    with ending():
        if targets:
            refusals = authoring.against(folder, targets)
            if as_json:
                typer.echo(json.dumps({"schema": 1, "targets": refusals}, ensure_ascii=False))
            if sentences := [why for each in refusals.values() for why in each]:
                raise MisfitError("; ".join(sentences))
            if not as_json:
                typer.echo(f"nothing speaks against {', '.join(each.words for each in targets)}")
            return
        with Console(stderr=True).status("running the golden samples in a worker"):
            checked = authoring.verify(folder)
        _show_checked(checked, "verified", as_json=as_json)


@app.command()
def show(folder: Folder, *, as_json: AsJson = False) -> None:
    """Say what a package is made of and what it promises.

    Example: edge-agent model show pump-anomaly --json
    """
    with ending():
        contents = read_folder(folder)
        document = authoring.described(contents)
        if as_json:
            typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
            return
        manifest = contents.manifest
        table = Table(show_header=False, box=None)
        table.add_column()
        table.add_column(overflow="fold")
        opsets = ", ".join(f"{k or 'ai.onnx'} {v}" for k, v in contents.facts.opsets.items())
        for key, value in (
            ("name", manifest.name),
            ("description", manifest.description),
            ("tags", ", ".join(f"{k}={v}" for k, v in manifest.tags.items())),
            ("digest", document["digest"]),
            ("features", ", ".join(manifest.features.names)),
            ("window", _window(manifest.window)),
            ("score", manifest.output.score.tensor),
            ("providers", ", ".join(manifest.runtime.providers)),
            ("graph", f"{contents.facts.nodes} nodes, opset {opsets}"),
            ("golden", manifest.golden.file if contents.has_golden else "missing: model build"),
        ):
            if value:
                table.add_row(key, str(value))
        for file in contents.files:
            table.add_row("file", f"{file.path}  {file.size:,} bytes")
        screen().print(table)


def _show_checked(checked: authoring.Checked, verb: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(checked.document(), indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{verb} {checked.contents.manifest.name}: {checked.samples} golden samples"
        f" on {checked.provider} in {checked.run_ms:.1f} ms, {checked.memory_mb:g} MB"
    )
    for note in checked.notes:
        _aside(note)


def _window(window: object) -> str:
    dump = getattr(window, "model_dump", None)
    return json.dumps(dump(mode="json", exclude_none=True)) if dump else ""


def _aside(text: str) -> None:
    typer.echo(text, err=True)
