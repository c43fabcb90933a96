"""The model hub: what a name and a revision stand for, and the files of it that are used."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emperf.core.errors import UserError

FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md")
# Folders hold other formats, and some models carry a second copy of their weights in a format of their maker's.
NOT = ("*/*", "consolidated*")


def fetch(name: str, commit: str) -> Path:
    """A local folder with the repository's files at a commit. Raises UserError."""
    from huggingface_hub import snapshot_download

    with explained(name, commit):
        return Path(
            snapshot_download(name, revision=commit, allow_patterns=list(FILES), ignore_patterns=list(NOT))
        )


def resolve(name: str, revision: str | None) -> str:
    """The commit that a branch, a tag or nothing (the main branch) stands for today. Raises UserError."""
    from huggingface_hub import HfApi

    with explained(name, revision):
        return str(HfApi().model_info(name, revision=revision).sha)


@contextmanager
def explained(name: str, revision: str | None) -> Iterator[None]:
    """Whatever the hub's client raises, as a UserError that says what is to be done."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import logging

    # It tells of every new try; what counts is said below.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    at = f" at {revision}" if revision else ""
    try:
        yield
    except errors.HFValidationError:
        raise UserError(
            f"{name!r} is no name on the model hub, and no folder", "Write OWNER/MODEL."
        ) from None
    except errors.GatedRepoError:
        raise UserError(
            f"{name} is given on terms that you have not accepted",
            "Accept them on its page, then log in (hf auth login).",
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{name} has no revision {revision}", "Give a branch, a tag or a commit of it."
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"There is no model {name} on the hub, or it is private",
            "Check its name, or log in (hf auth login).",
        ) from None
    except Exception as error:  # the client's own errors, those of its HTTP library
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        if constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{name}{at} cannot be fetched: HF_HUB_OFFLINE forbids the network", "Unset HF_HUB_OFFLINE."
            ) from None
        raise UserError(
            f"{name}{at} cannot be fetched ({type(error.__cause__ or error).__name__})",
            "Is there a network? Or give a local copy: --from FOLDER.",
        ) from None
