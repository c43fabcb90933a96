"""The container's entry point: `python -m emperf.training --in /in --out /out --submission /submission`.

Exit codes (spec/CONTRACT.md): 0 trained, 3 diverged, 4 the job or the submission is not usable, 5 a hook raised,
6 no room left below /out.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from emperf.training.threads import wait_politely

DIVERGED, UNUSABLE, HOOK, NO_ROOM, OUT_OF_MEMORY = 3, 4, 5, 6, 7


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="emperf.training")
    parser.add_argument("--in", dest="inputs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--submission", type=Path, required=True)
    known = parser.parse_args(arguments)
    job_file = known.inputs / "job.json"
    try:
        processes = int(json.loads(job_file.read_text())["recipe"]["processes"])
        threads = int(json.loads(job_file.read_text())["recipe"]["threads"])
    except (OSError, ValueError, KeyError) as error:
        return say(UNUSABLE, f"job.json cannot be read: {error}")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    wait_politely()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if processes > 1 and "RANK" not in os.environ:
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
        ]
        again = arguments if arguments is not None else sys.argv[1:]
        os.execv(sys.executable, [*launch, "-m", "emperf.training", *again])
    return run(known.inputs, known.out, known.submission)


def run(inputs: Path, out: Path, submission: Path) -> int:
    from emperf.training.data import UnusableRows, read_rows
    from emperf.training.job import Job
    from emperf.training.loop import Diverged, HookFailed, train
    from emperf.training.probe import probe

    try:
        job = Job.load(inputs / "job.json")
        mitigation = load_mitigation(submission)(**job.parameters)
        rows = read_rows(inputs / job.data)
        trusted = read_rows(inputs / job.trusted) if job.trusted else []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, SyntaxError) as error:
        return say(UNUSABLE, f"{type(error).__name__}: {error}")
    try:
        if job.probe:
            found = probe(job, inputs, mitigation, rows, trusted)
            (out / "probe.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
            return 0
        report = train(job, inputs, out, mitigation, rows, trusted, show_progress)
        if int(os.environ.get("RANK", "0")) == 0:
            text = json.dumps({"contract": job.contract, "job_id": job.job_id, **asdict(report)}, indent=1)
            (out / "report.json").write_text(text + "\n")
    except (UnusableRows, Diverged, HookFailed) as error:
        return say({UnusableRows: UNUSABLE, Diverged: DIVERGED, HookFailed: HOOK}[type(error)], str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return say(NO_ROOM, "no room is left below /out")
    return 0


def load_mitigation(submission: Path) -> type:
    """The class that submission.yaml names as `mitigation: file.py:Class`. Raises ValueError if there is none."""
    import yaml

    from emperf.training.mitigation import Mitigation

    entry = yaml.safe_load((submission / "submission.yaml").read_text()).get("mitigation", "")
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
    print(f"emperf.training: {text}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
