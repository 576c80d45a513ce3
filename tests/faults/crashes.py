"""Kill a writer at every system call that it makes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["CALLS", "kill_at_every_call"]

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir")
SCRIPT = """
import os, signal, sys
from pathlib import Path
{imports}

def dying(real, fatal):
    def call(*args, **kwargs):
        fatal[0] -= 1
        if fatal[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

for step in range(1, 200):
    folder = Path(sys.argv[1]) / str(step)
{before}
    child = os.fork()
    if child == 0:
        fatal = [step]
        for name in {calls}:
            setattr(os, name, dying(getattr(os, name), fatal))
{write}
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(step)
"""


def kill_at_every_call(root: Path, *, imports: str, before: str, write: str) -> int:
    """Run `write` in process after process, killing the n-th at its n-th call of `CALLS` in `os`; return how many ran.

    `imports`, `before` and `write` are lines of Python; in them `folder` is `root / str(n)`. They run in a process of
    their own, which forks once per n. The last process is the one that nothing killed.
    """
    script = SCRIPT.format(
        imports=imports, before=textwrap.indent(before, " " * 4), write=textwrap.indent(write, " " * 8), calls=CALLS
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)], check=True, capture_output=True, text=True)
    return int(done.stdout)
