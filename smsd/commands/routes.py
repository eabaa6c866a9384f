"""`smsd routes module:router`: lists the routes of a router, in the order they are
asked.

Reads no settings and starts nothing. Routes that are wrong are reported as `serve`
would.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from smsd.dialogues.loading import find
from smsd.dialogues.route_table import Route
from smsd.errors import SettingsError
from smsd.router import Router


def main(spec: str, out: TextIO, err: TextIO = sys.stderr) -> int:
    """Print a line for each route. The exit code: 2 if there is no router of that name."""
    try:
        router = find(spec)
    except SettingsError as error:
        err.write(f"smsd routes: {str(error).removeprefix('SMSD_DIALOGUE: ')}\n")
        return 2
    if not isinstance(router, Router):
        err.write(f"smsd routes: {spec} is not a Router but a {type(router).__name__}\n")
        return 2
    rows = [*_rows(router.routes)]
    widths = [max([len(row[column]) for row in rows], default=0) for column in range(3)]
    for *cells, place, note in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        out.write("  ".join([*padded, place]) + "\n" + (f"    {note}\n" if note else ""))
    return 0


def _rows(routes: Sequence[Route], indent: str = "") -> Iterator[tuple[str, str, str, str, str]]:
    for route in routes:
        yield indent + route.kind, route.takes, route.handler, route.place, route.note
        yield from _rows(route.nested, indent + "  ")
