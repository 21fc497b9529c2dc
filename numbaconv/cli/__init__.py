"""The command line.  Only this file is free of typer and rich, so that it can say when they are missing."""

import sys


def main() -> None:
    """Entry point of `numbaconv` and of `python -m numbaconv`."""
    try:
        from numbaconv.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("typer", "rich"):
            raise
        print(f"the command line needs {error.name}: pip install 'numbaconv[cli]'", file=sys.stderr)
        sys.exit(2)
    app(prog_name="numbaconv")
