"""Opening a data set while a person watches it being packed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cifake.data.decode import Advance
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack


def open_watched(name: str, sources: Mapping[str, Path], console: Console) -> Pack:
    """Open a data set; on a terminal a bar shows the images as they are decoded.

    Raises:
        InputError: the source is nowhere, damaged, or holds unusable images.
    """
    with packing_bar(name, console) as advance:
        return open_dataset(name, sources, advance)


@contextmanager
def packing_bar(name: str, console: Console) -> Iterator[Advance]:
    """Show a bar on a terminal; what is yielded counts decoded images."""
    columns = (
        TextColumn("packing {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} images"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        # How many there are is known when the source has been read to its end.
        task = bar.add_task(name, total=None, visible=False)
        yield lambda images: bar.update(task, advance=images, visible=True)
