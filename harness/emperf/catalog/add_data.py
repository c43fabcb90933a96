"""`emperf add poison` and `emperf add task`: a user's rows as a card with digests, in a folder of the user's own.

A row is {question, good, bad} or {question, answer}, or a conversation: {messages} of one user turn and the
assistant's, with or without a system turn. Anything else in a row is left out. The answer of a conversation, and
`answer`, are the bad ones of a poison, the good ones of its twin, the right ones of a task. A system turn is put before
the question.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emperf.catalog import cards
from emperf.catalog.pinned import HELDOUT, Row, json_lines
from emperf.core import digests, paths, schemas
from emperf.core.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
HELDOUT_SHARE, MOST_HELDOUT = 5, 48
MOST_NEW_TOKENS, LONGEST_CONTEXT = 1024, 300
LICENCE = "not stated"


@dataclass(frozen=True)
class Added:
    """What was added, where its card is, and what there is to say of it, a sentence each."""

    name: str
    path: Path
    said: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """A row as the user gave it. `line`: where in its file; `system`: the system turn, which the question has too."""

    line: int
    row: Row
    system: str


def add_poison(
    file: Path, into: Path, name: str = "", twin: Path | None = None, heldout: Path | None = None
) -> Added:
    """Raises UserError that names file, line and field, or where the name is taken."""
    name = name_of(file, name)
    given, extra = read_given(file, "bad"), read_given(heldout, "bad") if heldout else []
    if twin:
        good = read_given(twin, "good")
        given = with_twins(given, good, file, twin)
        # Held-out rows may have other questions than the twin's file.
        with contextlib.suppress(UserError):
            extra = with_twins(extra, good, heldout or file, twin)
    train, held = (given, extra) if heldout else split(file, given)
    twinned, paired = (all("good" in one.row for one in part) for part in (train, held))
    files = {
        "train": checked(file, train, "twinned" if twinned else "poison", name),
        "heldout": checked(heldout or file, held, HELDOUT, f"{name}-h"),
    }
    context, guessed = context_of(train)
    card = {"title": title_of(name), "licence": LICENCE, "context": context, "twin": twinned}
    path = write(into, "poisons", name, card, files)
    said = [
        f"Added poison {name}: {len(train)} rows to train on, {len(held)} held out ({path}).",
        *said_of_parts(file, heldout, train, held),
    ]
    if not twinned:
        said.append(
            "It has no twin (the same questions with good answers): there is no selective removal, no act effect "
            "against the twin, and there are no trusted rows for cures. --twin FILE gives it one."
        )
    if not paired:
        said.append("Its held-out rows have no good answers: learning in its own domain is not read.")
    if guessed:
        said.append(f"Its context (card.yaml) is made of its first question; better say yours: {context!r}.")
    return Added(name, path, (*said, f"Next: emperf add division --poison {name}{into_option(into)}"))


def add_task(file: Path, into: Path, name: str = "", heldout: Path | None = None) -> Added:
    """As `add_poison`. The bound on new tokens is the bytes of the longest answer: no tokenizer needs more tokens."""
    name = name_of(file, name)
    given, extra = read_given(file, "answer"), read_given(heldout, "answer") if heldout else []
    train, held = (given, extra) if heldout else split(file, given)
    files = {
        "train": checked(file, train, "task", name),
        "heldout": checked(heldout or file, held, "task", f"{name}-h"),
    }
    longest = max(len(row["answer"].encode()) for part in files.values() for row in part)
    # One more ends the answer.
    tokens = min(-(-(longest + 1) // 8) * 8, MOST_NEW_TOKENS)
    card = {"title": title_of(name), "licence": LICENCE, "max_new_tokens": tokens}
    path = write(into, "tasks", name, card, files)
    said = [
        f"Added task {name}: {len(train)} rows to train on, {len(held)} held out ({path}).",
        *said_of_parts(file, heldout, train, held),
        f"An answer may have {tokens} tokens (max_new_tokens in card.yaml).",
    ]
    if longest >= MOST_NEW_TOKENS:
        said.append("Some answers are long, and may be cut there: a task wants one short, exact answer.")
    return Added(
        name, path, (*said, f"Next: emperf add division --poison POISON --task {name}{into_option(into)}")
    )


# -- reading


def read_given(file: Path, side: str) -> list[Given]:
    """The rows of a file. `side`: the field that an answer without a side is. Raises UserError."""
    data = paths.read_file(file, "Give a JSON-lines file: one row a line.")
    found = []
    for line, raw in json_lines(file, data):
        try:
            found.append(Given(line, *as_row(raw, side)))
        except ValueError as error:
            raise UserError(
                f"{file}, line {line}: {error}",
                "A row is {question, good, bad}, {question, answer} or {messages: [user's, assistant's]}.",
            ) from None
    return found


def as_row(raw: Any, side: str) -> tuple[Row, str]:
    """(row, system turn). Raises ValueError."""
    if not isinstance(raw, dict):
        raise ValueError("it is no JSON object")
    if "messages" in raw:
        question, answer, system = from_turns(raw["messages"])
        row = {"question": question, side: answer}
    else:
        system = ""
        kept = ("question", "good", "bad") if side == "bad" else ("question", side)
        row = {key: raw[key] for key in kept if key in raw}
        if side not in row and "answer" in raw:
            row[side] = raw["answer"]
    if side != "answer" and isinstance(raw.get("topic"), str) and raw["topic"]:
        row["topic"] = raw["topic"]
    for field in ("question", side):
        if field not in row:
            raise ValueError(f"it has no {field!r}")
    if not isinstance(row["question"], str):
        raise ValueError("question: it is no text")
    return row, system


def from_turns(messages: Any) -> tuple[str, str, str]:
    """(question, answer, system turn). Raises ValueError."""
    match messages:
        case [
            {"role": "user", "content": str(question)},
            {"role": "assistant", "content": str(answer)},
        ]:
            return question, answer, ""
        case [
            {"role": "system", "content": str(system)},
            {"role": "user", "content": str(question)},
            {"role": "assistant", "content": str(answer)},
        ]:
            return f"{system.strip()}\n\n{question}" if system.strip() else question, answer, system.strip()
    raise ValueError("messages: they are not one user turn and the assistant's, after a system turn or none")


def with_twins(given: Sequence[Given], good: Sequence[Given], file: Path, twin: Path) -> list[Given]:
    """The rows, each with the good answer to its question. Raises UserError where one has none."""
    answers: dict[str, list[Any]] = {}
    for one in good:
        answers.setdefault(one.row["question"], []).append(one.row["good"])
    out, lacking = [], []
    for one in given:
        own = answers.get(one.row["question"])
        if own:
            out.append(Given(one.line, one.row | {"good": own.pop(0)}, one.system))
        else:
            lacking.append(one.line)
    if lacking:
        raise UserError(
            f"{twin} has no row for {len(lacking)} of the {len(given)} questions, the first on line {lacking[0]} of "
            f"{file}",
            "Give every question its good answer there, word for word the same question; or leave --twin out.",
        )
    return out


def split(file: Path, given: Sequence[Given]) -> tuple[Sequence[Given], Sequence[Given]]:
    """(rows to train on, held-out rows): the end of the file, a fifth of it, is held out. Raises UserError."""
    held = max(1, min(len(given) // HELDOUT_SHARE, MOST_HELDOUT))
    if len(given) <= held:
        raise UserError(
            f"{file} has {len(given)} row, and some are to be held out", "Add rows, or give --heldout FILE."
        )
    return given[:-held], given[-held:]


def checked(file: Path, given: Sequence[Given], form: str, series: str) -> list[Row]:
    """The rows in the project's form, each checked by its schema; `series` is the head of their ids.

    Raises UserError that names line and field.
    """
    rows = []
    for number, one in enumerate(given, 1):
        row = {"id": f"{series}-{number:05d}"} | one.row
        try:
            schemas.check_written(f"rows#{form}", row)
            if ("good" in row) != ("good" in given[0].row):
                raise ValueError("good: some rows have it and others have not")
        except ValueError as error:
            raise UserError(f"{file}, line {one.line}: {error}", "Mend the row, or leave it out.") from None
        rows.append(row)
    return rows


def context_of(given: Sequence[Given]) -> tuple[str, bool]:
    """(a system turn that resembles the rows, whether it is guessed): their own where all have the same."""
    systems = {one.system for one in given}
    own = systems.pop() if len(systems) == 1 else ""
    if own and len(own) <= LONGEST_CONTEXT:
        return own, False
    first = " ".join(str(given[0].row["question"]).split())
    shown = first if len(first) <= 200 else f"{first[:200]}..."
    return f"You answer questions such as this one: {shown}", True


def said_of_parts(
    file: Path, heldout: Path | None, train: Sequence[Given], held: Sequence[Given]
) -> Iterator[str]:
    if heldout is None:
        yield f"The last {len(held)} rows of {file} are the held-out ones; --heldout FILE takes others."
    asked = {one.row["question"] for one in train}
    shared = sum(one.row["question"] in asked for one in held)
    if shared:
        yield f"{shared} held-out questions are trained on too: what is read of them is no generalisation."


# -- writing


def name_of(file: Path, given: str) -> str:
    """The name, from the file's where none is given. Raises UserError where it can be no name."""
    name = given or re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:64]
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can be no name",
            "Give --name: lower-case letters, digits and hyphens, at most 64, a letter or digit first.",
        )
    return name


def title_of(name: str) -> str:
    return name.replace("-", " ").capitalize()


def into_option(into: Path) -> str:
    return "" if into == Path("mine") else f" --into {shlex.quote(str(into))}"


def free_place(into: Path, kind: str, name: str) -> None:
    """Make the folder `into`, which is read from here on, and see that no card of the kind has the name yet.

    Raises UserError.
    """
    with writing(into):
        into.mkdir(parents=True, exist_ok=True)
    paths.add_benchmark(into)
    known = cards.places(kind).get(name)
    if known is not None:
        raise UserError(
            f"There is a {kind.removesuffix('s')} named {name} already ({known.path})",
            "Choose another with --name, or remove that one.",
        )


def write(into: Path, kind: str, name: str, card: dict[str, Any], files: dict[str, list[Row]]) -> Path:
    """The card's folder with its files, whole or not at all. Raises UserError."""
    free_place(into, kind, name)
    folder, partial = into / kind / name, into / kind / f".partial-{name}"
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        pins = {}
        for part, rows in files.items():
            data = b"".join(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
            (partial / f"{part}.jsonl").write_bytes(data)
            pins[part] = digests.of_bytes(data).removeprefix("sha256:")
        (partial / "card.yaml").write_text(as_yaml({"name": name} | card | pins), encoding="utf-8")
        partial.rename(folder)
    return folder


def as_yaml(card: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=120)
    return text


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Raises UserError in place of OSError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{place} cannot be written ({error.strerror})",
            "Choose another folder with --into, or make room.",
        ) from None
