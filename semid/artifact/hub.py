"""Push an artifact to the Hugging Face Hub with a model card, and fetch one.

Plain uploads and downloads of the folder. `huggingface_hub.ModelHubMixin` would do the same, but its import costs
half a second at every start and its `save_pretrained` writes a README into the folder, which may be a model's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from semid.errors import ArtifactError

__all__ = ["fetch", "push"]


FILES = ["semid.json", "semid-*.safetensors", "*.tsv"]


def push(
    save: Callable[[str], object],
    card: Callable[[str], str],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """Upload an artifact in one commit, which also removes the data files of earlier uploads; return its URL.

    Parameters
    ----------
    save
        A function that writes the artifact into the folder of the given path.
    card
        A function from the repository's full name to the text of its README.md.
    repo_id
        "user/name"; the repository is made if needed.
    private
        Whether a new repository is private. Default: the account's default.
    token
        A Hub token. Default: the one of `hf auth login`.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        (Path(folder) / "README.md").write_text(card(repo_id), encoding="utf-8")
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message="Upload semantic IDs",
            delete_patterns="semid-*.safetensors",
        ).commit_url


def fetch(repo_id: str, *, revision: str | None = None) -> Path:
    """Download an artifact and return its folder.

    Raises
    ------
    ArtifactError
        The repository is missing or cannot be reached; the message gives the reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(
            f"{repo_id}: no such folder here, and no such artifact on the Hub ({reason}). Check the name."
        ) from None
