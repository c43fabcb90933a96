"""What `emperf check --json` prints."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from emperf.records.parts import Amount, Digest, Part, Value
from emperf.records.provenance import Provenance


class Finding(Part):
    """One thing that was looked at."""

    name: str = Field(description="What was looked at.")
    ok: bool = Field(description="Whether it is as it has to be.")
    found: str = Field(description="What there is, with the number, or what is wrong.")


class CheckedSubmission(Part):
    """One submission's checks."""

    folder: str = Field(description="As it was given: a folder, or a name in the catalogue.")
    digest: Digest | None = Field(
        description="Digest of the submission's whole folder. Null where submission.yaml cannot be used."
    )
    passed: bool = Field(description="Whether every check is ok.")
    wall_s: Amount = Field(description="How long the checks took, host clock, seconds.")
    checks: tuple[Finding, ...] = Field(
        description="In order. Where one fails without which the next cannot be made, it is the last."
    )


class Conformance(Provenance):
    """What `emperf check --json` prints: whether submissions keep the contract and do something, on a tiny model."""

    model_config = ConfigDict(title="EMPerf conformance")

    parameters: dict[str, Value] = Field(description="The values that were given with --set.")
    passed: bool = Field(description="Whether all submissions pass.")
    submissions: Annotated[tuple[CheckedSubmission, ...], Field(min_length=1)] = Field(
        description="In the order in which they were checked."
    )
