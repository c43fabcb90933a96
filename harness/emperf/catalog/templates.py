"""Chat templates, tried before a model is used: what a run needs of them, and what is put in where it is missing."""

from __future__ import annotations

from typing import Any

from emperf.training.data import Row, around_answer, encode, end_of_turn, render

# For a model that brings no template. Plain words, which any model has read; the turn ends with the end of text.
FALLBACK = """\
{{- bos_token -}}
{%- set titles = {'system': 'Instructions', 'user': 'Question', 'assistant': 'Answer'} -%}
{%- for message in messages -%}
  {{- titles[message['role']] ~ ':\\n' ~ message['content'] -}}
  {{- (eos_token if message['role'] == 'assistant' else '') ~ '\\n\\n' -}}
{%- endfor -%}
{{- 'Answer:\\n' if add_generation_prompt -}}
"""
# Before a template that refuses or drops a system turn: its words open the first user turn.
SYSTEM_FIRST = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set asked = messages[0]['content'] ~ '\\n\\n' ~ messages[1]['content'] -%}
{%- set messages = [{'role': 'user', 'content': asked}] + messages[2:] -%}
{%- endif %}
"""
# Before a template that writes today's date, so that a prompt is the same on every day.
ONE_DAY = "{%- macro strftime_now(form) -%}01 Jan 2025{%- endmacro %}\n"

SYSTEM, QUESTION, OTHER, ANSWER = "Answer in verse.", "What now?", "Is it late?", "Go home."


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Contents as turns of user and assistant in turn, behind a system turn if one is given."""
    said = [
        {"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)
    ]
    return ([{"role": "system", "content": system}] if system else []) + said


def fitting(tokenizer: Any) -> str:
    """The template for a card: the tokenizer's own or the plain one, with what it needs put before it.

    It becomes the tokenizer's. Lines end in a line feed, as a file gives them back.
    """
    own = tokenizer.get_chat_template() if tokenizer.chat_template else FALLBACK
    tokenizer.chat_template = own.replace("\r\n", "\n").replace("\r", "\n")
    if dated(tokenizer):
        tokenizer.chat_template = ONE_DAY + tokenizer.chat_template
    if not shows_system(tokenizer):
        tokenizer.chat_template = SYSTEM_FIRST + tokenizer.chat_template
    return str(tokenizer.chat_template)


def faults(tokenizer: Any) -> list[str]:
    """Why the template cannot be used, each in a few words; empty where it can."""
    if not tokenizer.chat_template:
        return ["it has no chat template"]
    try:
        encode(tokenizer, Row(tuple(turns(QUESTION, ANSWER))), 1 << 20)
        prompts = [
            tokenizer(render(tokenizer, turns(asked), open_turn=True), add_special_tokens=False).input_ids
            for asked in (QUESTION, OTHER)
        ]
    except Exception as error:  # a template is a program of its author's
        return [f"its chat template fails on a question and its answer: {error}"]
    found = []
    if not prompts[0] or prompts[0][:1] != prompts[1][:1]:
        found.append("its chat template writes nothing before the first turn's text")
    if not shows_system(tokenizer):
        found.append("its chat template refuses or drops a system turn")
    if dated(tokenizer):
        found.append("its chat template writes today's date, so that prompts change from day to day")
    return found


def oddities(tokenizer: Any) -> list[str]:
    """What the template cannot do that a run can do without, or does in a way of its own."""
    found = []
    before, after, _ = around_answer(tokenizer, turns(QUESTION))
    known, ends = tokenizer.added_tokens_decoder, end_of_turn(tokenizer, after)
    opened = tokenizer.apply_chat_template(turns(QUESTION), tokenize=False, add_generation_prompt=True)
    if opened != before:
        found.append(
            "its prompt for generation is not how its assistant's turns begin; prompts begin as those do"
        )
    if not ends:
        found.append("no token ends a turn, so that answers do not learn to end")
    elif known[ends[0]].content not in after:
        found.append("no special token ends a turn; answers learn to end with the end of text")
    try:
        render(tokenizer, turns(QUESTION, ANSWER, OTHER), open_turn=True)
    except Exception:
        found.append("it refuses conversations of several turns")
    return found


def shows_system(tokenizer: Any) -> bool:
    try:
        return SYSTEM in render(tokenizer, turns(QUESTION, system=SYSTEM), open_turn=True)
    except Exception:
        return False


def dated(tokenizer: Any) -> bool:
    template = tokenizer.get_chat_template()
    return "strftime_now" in template and ONE_DAY not in template
