"""The command line. `main` is the entry point; what is heavy is loaded by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from icapscan.cli.app import EXIT_USAGE, app
from icapscan.cli.quarantine_app import quarantine_app

app.add_typer(quarantine_app, name="quarantine")

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None = that of the process); returns the exit code.

    0 clean or done, 1 infected or suspicious, 2 not (fully) scanned, 3 usage or configuration.
    """
    import typer

    from icapscan.errors import IcapscanError

    # typer raises the UsageError of click, or of its own copy of click, according to its version
    usage_error: Any = typer.BadParameter.__base__
    command = typer.main.get_command(app)
    try:
        return int(command.main(arguments, prog_name="icapscan", standalone_mode=False) or 0)
    except usage_error as error:
        message = str(error.format_message())
        print(message if "\n" in message else f"icapscan: {message} Try: icapscan --help", file=sys.stderr)
        return EXIT_USAGE
    except IcapscanError as error:
        print(f"icapscan: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        return 130  # as a shell says it for SIGINT
    except BrokenPipeError:  # whoever read our output has gone; what is not told counts as not scanned
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
