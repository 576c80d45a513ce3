"""What all commands share: the group, exit codes, reading words, printing.

stdout is data, stderr is talk. Exit codes: 0 done, 1 the input is wrong, 2 the command is wrong, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from semid._version import __version__
from semid.errors import SemidError
from semid.runtime.distributed import end_together, is_writer
from semid.runtime.progress import log_step, show_progress

if TYPE_CHECKING:
    from semid.clusters.tokens import ClusterTokens
    from semid.evaluation.quality import Quality
    from semid.tokenizer import SemanticIDTokenizer

__all__ = [
    "arguments_or_stdin",
    "cli",
    "device_option",
    "folder_argument",
    "json_option",
    "log",
    "main",
    "memory_option",
    "nearest_folder",
    "open_ids",
    "open_tokens",
    "output_option",
    "print_json",
    "print_quality",
    "print_written",
    "ready_vectors_option",
]

log = logging.getLogger("semid")


class Written(Protocol):
    """What a command that writes files hands back."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data for programs."""

    def summary(self) -> list[str]:
        """Return lines for people."""


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
# readable=False: what cannot be read is wrong input, not a wrong command, and the readers name it.
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, readable=False))
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write."
)
ready_vectors_option = click.option(
    "--embeddings",
    type=click.Path(path_type=Path, readable=False),
    help="Ready vectors, if the IDs were fitted to ready vectors.",
)
device_option = click.option("--device", help="Device to train on: auto (default), cpu, cuda, ...")
memory_option = click.option("--memory", help="Memory budget, such as 4GB. Default: 60 % of the machine's.")


def main() -> None:
    """Run a command; turn errors into messages and exit codes."""
    try:
        cli.main(standalone_mode=False)
        end_together()
    except SemidError as error:
        _fail(str(error), 1)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was written.", 130)
    except MemoryError:
        _fail("out of memory; nothing was written. Use a smaller --dim, or a machine with more memory.", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"semid: {message}", err=True)
    sys.exit(code)


class _Ordered(click.Group):
    """Commands in the order of the work; options of `semid` anywhere; a closed pipe ends it quietly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options of `semid` itself from behind the command too, where people write them."""
        end = args.index("--") if "--" in args else len(args)
        own, rest, words = [], [], iter(args[:end])
        for word in words:
            if word == "--threads":
                own += [word, *[value for value in [next(words, None)] if value is not None]]
            elif word in ("--quiet", "--verbose", "-v", "-vv") or word.startswith("--threads="):
                own.append(word)
            else:
                rest.append(word)
        return super().parse_args(ctx, own + rest + args[end:])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say where to go to those who look for `evaluate`."""
        if args[0] in ("eval", "evaluate"):
            ctx.fail(f"No such command '{args[0]}': semid doctor measures IDs, semid score measures recommendations.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe has seen enough; click would call that a failure
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


@click.group(cls=_Ordered, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="semid")
@click.option("-v", "--verbose", count=True, help="Print more log messages; -vv for all of them.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads to use. Default: OMP_NUM_THREADS, or all cores.")
def cli(verbose: int, quiet: bool, threads: int | None) -> None:
    """Semantic IDs: short token sequences for the items of a catalog.

    \b
    semid fit items.jsonl -o my-sid      learn IDs
    semid show my-sid B004756YJA         look at one
    semid doctor my-sid                  measure their quality

    These options may also come after the command.
    """
    quiet = quiet or not is_writer()
    level = logging.ERROR if quiet else [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("semid: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(message)s"))
    steps = logging.getLogger("semid.steps")  # one line per finished step, as it is
    steps.handlers[:], steps.propagate = [plain], False
    steps.setLevel(logging.ERROR if quiet else logging.INFO)
    show_progress(False if quiet else None)
    # Idle OpenMP threads sleep: spinning ones make a shared machine several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads:
        for name in THREAD_VARIABLES:  # read when NumPy and torch are imported, which is later
            os.environ[name] = str(threads)


def nearest_folder(path: Path) -> Path:
    """Return the nearest existing folder at or above a path: where temporary tables may go."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())


def open_ids(folder: Path) -> SemanticIDTokenizer:
    """Load semantic IDs from a folder or the Hub."""
    from semid.tokenizer import SemanticIDTokenizer

    return SemanticIDTokenizer.from_pretrained(folder)


def open_tokens(folder: Path) -> SemanticIDTokenizer | ClusterTokens:
    """Load semantic IDs, or tokens of users and items, whichever the folder holds."""
    from semid.artifact.kinds import CLUSTERS
    from semid.artifact.manifest import MANIFEST, read_manifest

    if not (folder / MANIFEST).is_file() or read_manifest(folder).get("kind") != CLUSTERS:
        return open_ids(folder)  # perhaps from the Hub
    from semid.clusters.tokens import ClusterTokens

    return ClusterTokens.open(folder)


def arguments_or_stdin(arguments: tuple[str, ...]) -> list[str]:
    """Return the arguments, or the lines of standard input for a single `-`."""
    if arguments != ("-",):
        return list(arguments)
    from semid.errors import InputError

    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"<stdin>: byte {error.start}: not UTF-8. Convert it: iconv -t UTF-8") from None
    # Not splitlines(), which also cuts at characters that an id may hold, such as U+2028.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_written(done: Written, output: Path, as_json: bool) -> None:
    """Say what a command wrote, in lines or as JSON."""
    log_step("saved", str(output))
    if as_json:
        print_json(done.to_dict())
    else:
        click.echo("\n".join(done.summary()))


def print_quality(quality: Quality, advice: list[str], as_json: bool, more: dict[str, str]) -> None:
    """Print quality figures and advice, as lines or as JSON with the entries of `more`."""
    if as_json:
        print_json(more | quality.to_dict() | {"advice": advice})
        return
    for line in quality.summary():
        click.echo(line)
    for sentence in advice:
        click.echo(f"advice: {sentence}")
    if "fingerprint" in more:
        click.echo(more["fingerprint"])
