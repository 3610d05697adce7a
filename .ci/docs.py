"""Keep the documents in step with the code.

Writes `results/README.md` from the table declarations, and two parts of `README.md` between their
markers: the table of results, by `first_table.py`, and the commands from the programs themselves.
With `--check` it writes nothing and fails where a document is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from first_table import first_table

from cifake import __main__ as cifake_command
from cifake import tables
from cifake.errors import InputError
from cluster import __main__ as cluster_command
from sweeps import __main__ as sweeps_command
from sweeps.report.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"sweeps": sweeps_command, "cifake": cifake_command, "cluster": cluster_command}


def main() -> int:
    readme = ROOT / "README.md"
    text = replace_part(readme.read_text(), "results", first_table(ROOT / "results"))
    wanted = {
        ROOT / "results" / "README.md": tables.documentation(),
        readme: replace_part(text, "commands", command_reference()),
    }
    stale = [path for path, content in wanted.items() if path.read_text() != content]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not in step with the code; run `make docs`")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def replace_part(text: str, name: str, content: str) -> str:
    """Put content between `<!-- name:begin -->` and `<!-- name:end -->`."""
    pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md lacks the markers of {name}")
    return pattern.sub(lambda match: match[1] + content + "\n" + match[2], text)


def command_reference() -> str:
    """Every command and option, as two Markdown tables."""
    commands: list[list[str]] = []
    options: dict[tuple[str, str], None] = {}
    for program, module in PROGRAMS.items():
        for path, command in walk(program, typer.main.get_command(module.app)):
            arguments = [p for p in command.params if p.param_type_name == "argument"]
            given = [p for p in command.params if p.param_type_name == "option"]
            shown = [p.metavar if p.required else f"[{p.metavar}]" for p in arguments]
            names = ", ".join(f"`{p.opts[0]}`" for p in given)
            commands.append([f"`{' '.join([path, *shown])}`", command.help, names])
            options |= {
                (f"`{p.opts[0]}{f' {p.metavar}' if p.metavar else ''}`", p.help): None
                for p in given
            }
    return "\n\n".join(
        [
            markdown_table(["command", "what it does", "options"], commands),
            markdown_table(["option", "meaning"], [list(option) for option in options]),
        ]
    )


def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command below a program that does something itself."""
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name, child in children.items():
        yield from walk(f"{path} {name}", child)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(str(error))
