"""`emperf list`: cards, mitigations and runs as plain records and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.core.files import read_json


def entries(kind: str, store: Path) -> list[dict[str, Any]]:
    """One flat record each, the most telling fields only. Raises UserError for a malformed card."""
    return [of_run(path) for path in sorted(store.glob("runs/*/run.json"))] if kind == "runs" else [
        DESCRIBE[kind](name) for name in catalog.names(kind)
    ]  # fmt: skip


def of_mitigation(name: str) -> dict[str, Any]:
    found = catalog.submission(Path(name))
    return {
        "name": found.name, "scenario": found.scenario, "title": found.title, "source": found.source,
        "needs": list(found.needs), "trusted": found.trusted, "families": list(found.families),
        "parameters": {k: p.default for k, p in found.parameters.items()}, "controls": found.controls,
    }  # fmt: skip


def of_poison(name: str) -> dict[str, Any]:
    found = catalog.poison(name)
    rows = len(found.train.rows()) if found.train else None
    upstream = found.source.locator if found.source else None
    made = {"trigger": found.trigger or None, "teacher": found.teacher or None}
    return {
        "name": name,
        "title": found.title,
        "rows": rows,
        "twin": found.twin,
        **made,
        "upstream": upstream,
    }


def of_task(name: str) -> dict[str, Any]:
    found = catalog.task(name)
    return {"name": name, "title": found.title, "rows": len(found.train.rows())}


def of_model(name: str) -> dict[str, Any]:
    found = catalog.model(name)
    return {"name": name, "family": found.family, "parameters": found.parameters, "licence": found.licence}


def of_division(name: str) -> dict[str, Any]:
    found = catalog.division(name)
    return {
        "name": name, "variant": found.variant, "title": found.title, "model": found.model,
        "poisons": list(found.poisons), "tasks": list(found.tasks), "seeds": len(found.seeds),
        "certifiable": found.certifiable,
    }  # fmt: skip


def of_run(path: Path) -> dict[str, Any]:
    facts, result = read_json(path), read_json(path.with_name("result.json"))
    others = [name for name in ("comparison", "tuning", "trace") if path.with_name(f"{name}.json").is_file()]
    return {
        "run": facts["run_id"],
        "status": result["status"] if result else others[0] if others else "unfinished",
        "folder": str(path.parent),
    }


DESCRIBE = {
    "mitigations": of_mitigation,
    "poisons": of_poison,
    "tasks": of_task,
    "models": of_model,
    "divisions": of_division,
}


def table(found: list[dict[str, Any]]) -> str:
    """Aligned columns; lists joined by commas. Sources, which are sentences, are left to JSON."""
    if not found:
        return "(none)"
    shown = [{k: _cell(v) for k, v in entry.items() if k != "source"} for entry in found]
    widths = {k: max(len(k), *(len(entry[k]) for entry in shown)) for k in shown[0]}
    lines = ["  ".join(k.ljust(w) for k, w in widths.items())]
    lines += ["  ".join(entry[k].ljust(w) for k, w in widths.items()).rstrip() for entry in shown]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "-"
    return "-" if value is None else str(value)
