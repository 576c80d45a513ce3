"""Make `docs/cli.md` from what `semid --help` says, so that the two cannot disagree.

python docs/make_cli_reference.py            # writes docs/cli.md
"""

from __future__ import annotations

from pathlib import Path

import click

from semid.cli import cli

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
HEAD = """# Command line

<!-- made by docs/make_cli_reference.py: change the help texts in semid/cli, then run it again -->

Results go to standard output, everything else to standard error; a progress bar is shown only on a terminal.
Commands that read print JSON with `--json`; `-` means standard input. Exit codes:

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | the input is wrong: the message says where, what was expected, and the fix |
| 2 | the command is wrong |
| 130 | interrupted; nothing was written |

The same from Python: [quickstart.md](quickstart.md#from-python).
"""


def reference() -> str:
    """The whole page."""
    top = click.Context(cli, info_name="semid", terminal_width=WIDTH, **cli.context_settings)
    parts = [HEAD, _section("semid", cli, top)]
    for name in cli.list_commands(top):
        command = cli.get_command(top, name)
        context = click.Context(command, info_name=name, parent=top)
        parts.append(_section(f"semid {name}", command, context))
    return "\n".join(parts)


def _section(title: str, command: click.Command, context: click.Context) -> str:
    return f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
