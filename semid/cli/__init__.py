"""The command line. Each command reads its input, calls one thing, prints; the work is elsewhere.

`app.py` holds what all commands share and `reading.py` the options of those that read records; the other files hold the
commands. Heavy imports happen inside the commands, so `semid --help` is quick.
"""

from __future__ import annotations

from semid.cli.adapt import adapt
from semid.cli.align import align
from semid.cli.app import cli, log, main
from semid.cli.clusters import clusters
from semid.cli.extend import export, extend, import_
from semid.cli.fit import fit
from semid.cli.inspect import bench, doctor, info, verify
from semid.cli.lookup import decode, encode, show
from semid.cli.refit import refit
from semid.cli.score import score
from semid.cli.split import split
from semid.cli.update import add, diff, history, retire

__all__ = ["cli", "log", "main"]

COMMANDS = (
    fit, adapt, show, encode, decode, add, retire, refit, history, diff, extend, split, align, clusters, export,
    import_, doctor, score, verify, info, bench,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)
