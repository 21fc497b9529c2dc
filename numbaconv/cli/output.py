"""What every command prints in the same way: one JSON document, one red line for an error, compilation as it runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table

from numbaconv.codegen.jit import on_compile
from numbaconv.errors import ConvError

#: Results go to stdout, all else to stderr, so that stdout can be piped.
console = Console()
notes = Console(stderr=True)
_PIPED_WIDTH = 250


def reports_errors(command: Callable) -> Callable:
    """Turn the errors that a user can cause into one line and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except FileNotFoundError as error:
            fail(f"{error.filename}: no such file" if error.filename else str(error))
        except ConvError as error:
            fail(str(error))

    return wrapped


def fail(message: str) -> None:
    """Print `message` as one red line and leave with exit code 2."""
    notes.print(" ".join(message.split()), style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def print_json(document: object) -> None:
    """Print one JSON document and nothing else; NumPy's scalars become numbers."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=float))


def table(title: str, *columns: str) -> Table:
    """A table whose columns but the first are numbers."""
    made = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        made.add_column(column, justify="right" if position else "left")
    return made


def print_wide(rows: Table) -> None:
    """Print a table that may be wider than 80 columns: folded to fit a terminal, but not in a file or a pipe."""
    (console if console.is_terminal else Console(width=_PIPED_WIDTH)).print(rows, markup=False)


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Show what runs, and which kernel is being compiled, until the block ends."""
    with notes.status(doing) as status:

        def compiling(name: str, seconds: float | None) -> None:
            status.update(f"{doing} (compiling {name}, once for this machine)" if seconds is None else doing)

        with on_compile(compiling):
            yield
