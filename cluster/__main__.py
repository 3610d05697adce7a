"""The `cluster` command."""

from __future__ import annotations

import shlex
import signal
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cifake.errors import run_command
from cluster import local
from cluster.profile import read_profile, shipped

app = typer.Typer(
    help="Start, watch and stop a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ProfileArgument = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A profile that ships, or a YAML file.")
]

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")
]


@app.command("list")
def list_profiles() -> None:
    """List the profiles that ship."""
    table = Table("profile", "what", "file")
    for name, path in shipped().items():
        table.add_row(name, read_profile(name)[1].description, str(path))
    Console().print(table)


@app.command()
def show(profile: ProfileArgument) -> None:
    """Print a profile with its defaults written out."""
    print(read_profile(profile)[1].model_dump_json(indent=2))


@app.command()
def up(
    profile: ProfileArgument,
    dry_run: DryRunOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Start a cluster and say how to use it; one that runs is left as it is."""
    name, settings = read_profile(profile)
    if dry_run:
        print(shlex.join(local.start_command(settings)))
        return
    _tell(local.up(name, settings))


@app.command()
def status(profile: ProfileArgument) -> None:
    """Say whether a cluster runs; exit code 1 where it does not."""
    name, _ = read_profile(profile)
    running = local.find(name)
    if running is None:
        print(f"{name} is down")
        raise typer.Exit(1)
    _tell(running)


@app.command()
def down(profile: ProfileArgument) -> None:
    """Stop a cluster and remove what `up` made."""
    name, _ = read_profile(profile)
    stopped = local.down(name)
    print(f"{name} is stopped; its token and log are removed" if stopped else f"{name} is down")


def _tell(running: local.Running) -> None:
    variables = " ".join(f"{key}={shlex.quote(v)}" for key, v in running.environment.items())
    print(f"up at {running.address}, process {running.pid}, log {running.log}")
    print(f"{variables} sweeps run SPEC --address {running.address}")


def main() -> NoReturn:
    """Run the command line."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_command(app, "cluster")


if __name__ == "__main__":
    main()
