"""The container's entry point: `python -m emperf.training --in /in --out /out --submission /submission`.

Exit codes (spec/CONTRACT.md): 0 trained, 3 diverged, 4 the job or the submission is not usable, 5 a hook failed,
6 no room left below /out, 7 out of memory.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emperf.training.launch import launch
from emperf.training.threads import wait_politely

DIVERGED, UNUSABLE, HOOK, NO_ROOM, OUT_OF_MEMORY = 3, 4, 5, 6, 7


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="emperf.training")
    parser.add_argument("--in", dest="inputs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--submission", type=Path, required=True)
    # Given by the launcher to each of several processes.
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    known = parser.parse_args(arguments)
    try:
        recipe = json.loads((known.inputs / "job.json").read_text(encoding="utf-8"))["recipe"]
        processes, threads = int(recipe["processes"]), int(recipe["threads"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return say(UNUSABLE, f"job.json cannot be read: {error}")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    wait_politely()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if known.rank is None:
        if processes > 1:
            return launch(processes, arguments if arguments is not None else sys.argv[1:])
        # A cluster's own numbers mean other processes than these, and a library that finds them would wait for those.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        return run(known.inputs, known.out, known.submission)
    code = run_as_rank(known.inputs, known.out, known.submission)
    if code:
        # At once: an interpreter that takes its time to go lets the others fail of it first.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def run_as_rank(inputs: Path, out: Path, submission: Path) -> int:
    try:
        return run(inputs, out, submission)
    except Exception:
        traceback.print_exc()
        return 1


def run(inputs: Path, out: Path, submission: Path) -> int:
    """The job in this process; its exit code. What has none of its own is raised."""
    from emperf.training.data import UnusableRows
    from emperf.training.failures import Diverged, HookFailed, Unusable, described, is_out_of_memory, place

    code = 0
    try:
        try:
            given = read(inputs, submission)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise Unusable(f"{described(error)}{place(error, submission.absolute())}") from error
        work(inputs, out, *given)
    except Diverged as error:
        code = say(DIVERGED, str(error))
    except HookFailed as error:
        code = say(HOOK, str(error))
    except (Unusable, UnusableRows) as error:
        code = say(UNUSABLE, str(error))
    except Exception as error:
        if is_out_of_memory(error):
            code = say(OUT_OF_MEMORY, f"out of memory: {described(error)}")
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            code = say(NO_ROOM, "no room is left below /out")
        else:
            raise
    return code


def read(inputs: Path, submission: Path) -> tuple[Any, Any, list[Any], list[Any]]:
    """(job, mitigation, rows, trusted rows). Raises whatever the submission's module does."""
    from emperf.training.data import read_rows
    from emperf.training.job import Job

    job = Job.load(inputs / "job.json")
    mitigation = load_mitigation(submission)(**job.parameters)
    rows = read_rows(inputs / job.data)
    if not rows:
        raise ValueError(f"{job.data} holds no rows")
    return job, mitigation, rows, read_rows(inputs / job.trusted) if job.trusted else []


def work(inputs: Path, out: Path, job: Any, mitigation: Any, rows: list[Any], trusted: list[Any]) -> None:
    """Train, or probe, and write what is to be left below `out`."""
    from emperf.training.engine import rank_and_world
    from emperf.training.loop import train
    from emperf.training.probe import probe

    if job.probe:
        found = probe(job, inputs, mitigation, rows, trusted)
        (out / "probe.json").write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
        return
    report = train(job, inputs, out, mitigation, rows, trusted, show_progress)
    if rank_and_world()[0] == 0:
        text = json.dumps({"contract": job.contract, "job_id": job.job_id, **asdict(report)}, indent=1)
        (out / "report.json").write_text(text + "\n", encoding="utf-8")


def load_mitigation(submission: Path) -> type:
    """The class that submission.yaml names as `mitigation: file.py:Class`. Raises ValueError if there is none."""
    import yaml

    from emperf.training.mitigation import Mitigation

    entry = yaml.safe_load((submission / "submission.yaml").read_text(encoding="utf-8")).get("mitigation", "")
    file, _, name = entry.partition(":")
    spec = importlib.util.spec_from_file_location("submitted_mitigation", submission / file)
    if spec is None or spec.loader is None or not name:
        raise ValueError(f"submission.yaml: mitigation must be FILE.py:CLASS, not {entry!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = getattr(module, name)
    if not (isinstance(found, type) and issubclass(found, Mitigation)):
        raise ValueError(f"{entry} is no subclass of emperf.training.Mitigation")
    return found


def show_progress(step: int, total: int, loss: float) -> None:
    print(f"step {step}/{total} loss {loss:.3f}", flush=True)


def say(code: int, text: str) -> int:
    """One line, whatever is in the text."""
    print(f"emperf.training: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
