"""What run.json says of an experiment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cards import one_line

from emperf.core.errors import UserError
from emperf.experiments.about import again


def test_a_trace_is_named_as_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "trace-nano-1"
    folder.mkdir(parents=True)
    facts = {"about": {}, "cells": [], "readings": {"cells": {}, "base": {}}}
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError) as error:
        again(folder)
    one_line(error, "trace-nano-1 is a trace", "emperf report trace-nano-1")
