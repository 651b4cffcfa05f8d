"""Exported folders on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

from autopeft.core.errors import ExportError

_WHERE = "--push-to-hub"


def check_push(repo_id: str | None) -> None:
    """Checks that somebody may push to a repository, before there is anything to push.

    Raises:
        ExportError: no name of a repository, nobody who is logged in, or no hub.
    """
    if not repo_id:
        raise ExportError("names no repository, which --private is for", _WHERE)
    with _told():
        HfApi().repo_exists(repo_id)
        HfApi().whoami()


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool | None = None) -> str:
    """Uploads an exported folder as a repository of a model, which is made if need be.

    Args:
        folder: that `export` has written.
        repo_id: `user/name`.
        private: whether a new repository is; None leaves it to the hub.

    Returns:
        Its address.

    Raises:
        ExportError: the hub refuses it, or is out of reach.
    """
    api = HfApi()
    if not Path(folder).is_dir():
        raise ExportError("no such folder", str(folder))
    with _told():
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, commit_message="Exported by autopeft"
        )
    return str(url)


@contextmanager
def _told() -> Iterator[None]:
    """What the hub's client raises as one sentence."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ExportError("nobody is logged in: `hf auth login`, or HF_TOKEN", _WHERE) from error
    except HFValidationError as error:
        raise ExportError(" ".join(str(error).split()), _WHERE) from error
    except Exception as error:  # of the hub, and of whatever library its client asks with
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ExportError(f"the hub does not take it: {reason}", _WHERE) from error
