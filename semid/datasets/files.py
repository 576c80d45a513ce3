"""Files: the files of a public set, found in a folder by the names that they have on its page, compressed or not.

Some sets come in parts with a name in their files, such as `meta_Beauty.json.gz`. The file of the items says which part
it is; the file of the interactions must be of the same part.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from semid.errors import ConfigError, InputError
from semid.files.problems import name_list, quote

__all__ = ["Files"]

logger = logging.getLogger("semid")

COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst", ".zip")


class Files:
    """The files in a folder, and in the folders directly inside it.

    Parameters
    ----------
    folder : path
        Where the files of the set are.
    page : str
        Where to get the set, in words, for messages.
    part : str, optional
        The part to take, if the folder holds several.

    Raises
    ------
    InputError
        There is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str], page: str, part: str | None = None) -> None:
        self.folder, self.page, self.part = Path(folder), page, part
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder. Get the files of the set from {page}, and name their folder."
            )
        self.paths = sorted(path for path in (*self.folder.iterdir(), *self.folder.glob("*/*")) if path.is_file())

    def of_items(self, *patterns: str) -> Path:
        """Return the file of the items, and note its part: what `*` in the first pattern that fits stands for.

        Raises
        ------
        InputError
            No file fits, or files of several parts do.
        ConfigError
            A part was named, and the set has none.
        """
        if self.part and not any("*" in pattern for pattern in patterns):
            raise ConfigError(f"part={self.part!r}: this data set has no parts. Leave it out.")
        for pattern in patterns:
            parts: dict[str, Path] = {}
            for path, part in self._matches(pattern):
                if self.part in (None, part):
                    parts.setdefault(part, path)  # the plain file before the compressed one
            if len(parts) > 1:
                first = quote(min(parts))
                raise InputError(f"{self.folder}: several sets: {name_list(sorted(parts))}. Choose one: part={first}.")
            for part, path in parts.items():
                self.part = part
                return path
        wanted = _no(pattern.replace("*", self.part or "*") for pattern in patterns)
        raise InputError(
            f"{self.folder}: {wanted}, plain or compressed. Get it from {self.page}. "
            f"Files found: {name_list(path.name for path in self.paths)}."
        )

    def of_interactions(self, *patterns: str) -> list[Path]:
        """Return the files of the first pattern that fits, `{part}` in it being the part; a warning if none does."""
        wanted = [pattern.format(part=self.part or "") for pattern in patterns]
        for pattern in wanted:
            if found := self._matches(pattern):
                return [path for path, _ in found]
        logger.warning("%s: %s, so the set has no interactions. Get it from %s.", self.folder, _no(wanted), self.page)
        return []

    def _matches(self, pattern: str) -> list[tuple[Path, str]]:
        """Return the files that fit, each with what `*` stands for."""
        fits = re.compile(re.escape(pattern).replace(r"\*", "(.+)") + f"({'|'.join(map(re.escape, COMPRESSED))})")
        found = [(path, fits.fullmatch(path.name)) for path in self.paths]
        return [(path, match[1] if "*" in pattern else "") for path, match in found if match]


def _no(names: Iterable[str]) -> str:
    """Return that no file has one of these names.

    >>> _no(["u.data", "ratings.dat"])
    'no u.data or ratings.dat'
    """
    return "no " + " or ".join(names)
