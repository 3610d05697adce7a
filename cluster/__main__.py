"""The `cluster` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cifake.errors import InputError, Mistake, refuse, run_command
from cifake.exits import INTERRUPTED
from cluster import jobs, state
from cluster.actions import Action, RemoveFolder, perform, script
from cluster.launcher import BatchLauncher, Launcher, Profile
from cluster.launchers import LAUNCHERS
from cluster.profile import read_profile, shipped
from sweeps.__main__ import (
    DataOption,
    LogOption,
    SetOption,
    SpecArgument,
    UntilResolvedOption,
)

app = typer.Typer(
    help="Start Ray clusters, run sweeps on them, and remove them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DOWN = 1
"""Exit code of `status` where there is no cluster."""

ProfileArgument = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A profile that ships, or a YAML file.")
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="As `cluster submit` and `cluster status` name it.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written and run, and do nothing.")
]


@app.command("list")
def list_profiles() -> None:
    """List the profiles that ship, and where their files are."""
    found = shipped()
    table = Table("profile", "what")
    for name in found:
        table.add_row(name, read_profile(name, LAUNCHERS)[1].description)
    Console().print(table)
    for folder in dict.fromkeys(path.parent for path in found.values()):
        print(f"files: {folder}")


@app.command()
def show(profile: ProfileArgument) -> None:
    """Print a profile with its defaults written out."""
    print(read_profile(profile, LAUNCHERS)[1].model_dump_json(indent=2))


@app.command()
def up(
    profile: ProfileArgument,
    dry_run: DryRunOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Start a cluster and say how to use it; what runs is left as it is."""
    name, settings = read_profile(profile, LAUNCHERS)
    launcher = _launcher(name, settings)
    folder = state.folder_of(name)
    actions = [state.remember(settings, folder), *launcher.up(), state.came_up(folder)]
    if dry_run:
        print(script(actions))
        return
    _check(launcher)
    # It may have come up from another machine. Another launcher is asked, since one may remember.
    there = state.has_come_up(folder) or _launcher(name, settings).is_up()
    perform(actions, _tell, undo=not there)
    print(f"{name} is up")
    _print_reach(launcher)


@app.command()
def status(profile: ProfileArgument) -> None:
    """Say whether a cluster is up, its nodes and its jobs; exit code 1 where it is down."""
    name, launcher, _ = _known(profile)
    if not launcher.is_up():
        print(f"{name} is down")
        if isinstance(launcher, BatchLauncher):
            _print_jobs(launcher.jobs())
        raise typer.Exit(DOWN)
    found = jobs.status(launcher)
    print(f"{name} is up")
    for node in found["nodes"]:
        role = "head" if node["head"] else "worker"
        print(f"{role} {node['name']}: {node['cpus']:g} cores, {node['gpus']:g} GPUs")
    _print_jobs(found["jobs"])
    _print_reach(launcher)


@app.command()
def submit(
    profile: ProfileArgument,
    spec: SpecArgument,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="PLACE",
            help="Where runs live: a folder that every node sees, or s3://BUCKET/PREFIX, gs://… or "
            "az://…. Default: the profile's.",
        ),
    ] = None,
    data: DataOption = None,
    settings: SetOption = None,
    log: LogOption = None,
    until_resolved: UntilResolvedOption = False,  # noqa: FBT002 - typer makes a flag of it
    dry_run: DryRunOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Run a sweep on a cluster and show what it prints; it goes on if nobody looks any more."""
    name, launcher, known = _known(profile)
    submission = jobs.make_submission(
        spec,
        store or known.store,
        [
            *(word for path in [*known.data, *(data or [])] for word in ("--data", path)),
            *(word for logger in log or [] for word in ("--log", logger)),
            *(["--until-resolved"] if until_resolved else []),
        ],
        settings or [],
    )
    if isinstance(launcher, BatchLauncher) and not launcher.is_up():
        actions = launcher.submit(submission)
        if dry_run:
            print(script(actions))
            return
        _check(launcher)
        perform(actions, _tell)
    elif dry_run:
        print(script(jobs.submit_actions(launcher, submission)))
        return
    else:
        _require_up(name, launcher)
        jobs.submit(launcher, submission)
    job = submission.job
    _tell(f"job {job}; it goes on when this ends, and `cluster logs {profile} {job}` shows it")
    _follow(profile, launcher, job)


@app.command()
def logs(profile: ProfileArgument, job: JobArgument) -> None:
    """Show what a job printed, and what it prints until it ends; the exit code is the sweep's."""
    _, launcher, _ = _known(profile)
    _follow(profile, launcher, job)


@app.command()
def stop(profile: ProfileArgument, job: JobArgument) -> None:
    """End a job in order: finished epochs are kept, and the same sweep goes on from there."""
    name, launcher, _ = _known(profile)
    if isinstance(launcher, BatchLauncher) and job in launcher.jobs():
        perform(launcher.stop(job), _tell)
        print(f"{job}: stopped")
        return
    _require_up(name, launcher)
    print(f"{job}: {jobs.stop(launcher, job)}")


@app.command()
def down(
    profile: ProfileArgument,
    dry_run: DryRunOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Stop a cluster and remove all that `up` made, on every machine."""
    name, launcher, _ = _known(profile)
    folder = state.folder_of(name)
    actions: list[Action] = [*launcher.down(), RemoveFolder(path=folder)]
    if dry_run:
        print(script(actions))
        return
    if not folder.is_dir() and not launcher.is_up():
        print(f"{name} is down")
        return
    try:
        perform(actions, _tell)
    except InputError as error:
        hint = f"`cluster down {profile}` tries again; if that is gone for good, remove {folder}"
        raise InputError([*error.mistakes, Mistake(where=name, problem=hint)]) from None
    print(f"{name} is down; all that `cluster up` made is removed, runs stay in their store")


def _launcher(name: str, settings: Profile) -> Launcher:
    return LAUNCHERS[settings.launcher](name, settings, state.folder_of(name))


def _known(profile: str) -> tuple[str, Launcher, Profile]:
    """A cluster as it was started; as its profile says now where it was not."""
    name, settings = read_profile(profile, LAUNCHERS)
    known = state.remembered(state.folder_of(name), LAUNCHERS) or settings
    return name, _launcher(name, known), known


def _check(launcher: Launcher) -> None:
    if problems := launcher.problems():
        raise InputError(problems)


def _require_up(name: str, launcher: Launcher) -> None:
    if not launcher.is_up():
        refuse(name, f"is down; start it with `cluster up {name}`")


def _follow(profile: str, launcher: Launcher, job: str) -> NoReturn:
    try:
        if isinstance(launcher, BatchLauncher) and job in launcher.jobs():
            code = jobs.follow_batch(launcher, job)
        else:
            code = jobs.follow(launcher, job, _tell)
    except KeyboardInterrupt:
        _tell(f"\n{job} goes on; cluster logs {profile} {job} shows it, cluster stop ends it")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


def _print_jobs(found: Mapping[str, str]) -> None:
    for job, state_of_job in found.items():
        print(f"job {job}: {state_of_job}")


def _print_reach(launcher: Launcher) -> None:
    for what, command in launcher.reach().items():
        print(f"{what}: {command}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> NoReturn:
    """Run the command line."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_command(app, "cluster")


if __name__ == "__main__":
    main()
