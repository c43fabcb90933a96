"""A judge behind an endpoint with the interface of OpenAI's chat completions: many requests at a time, tried again."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from emperf.catalog.judges import Judge
from emperf.core.errors import UserError
from emperf.evaluation.judges.prompts import Asked
from emperf.evaluation.judges.replies import Reply

KEY, KEY_COMMAND, URL = "EMPERF_JUDGE_KEY", "EMPERF_JUDGE_KEY_COMMAND", "EMPERF_JUDGE_URL"
AGAIN = "Run the same command again: answers that are judged already are not asked again."
TRIES, WAIT_S, TIMEOUT_S = 6, 1.0, 120.0
# Most services count a token for about four characters of English.
CHARACTERS_A_TOKEN, REPLY_TOKENS = 4, 4


class Refused(Exception):
    """The service refuses this one prompt; others may be answered."""


def key() -> str:
    """The service's key, from a command or the environment; empty where neither is set.

    Raises UserError where the command fails.
    """
    command = os.environ.get(KEY_COMMAND)
    if not command:
        return os.environ.get(KEY) or os.environ.get("OPENAI_API_KEY", "")
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True, timeout=60)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(
            f"The command in {KEY_COMMAND} failed ({type(error).__name__})", "Try it by hand."
        ) from None
    return done.stdout.strip()


def cost(judge: Judge, prompts: Sequence[Asked]) -> float | None:
    """About how many US dollars the prompts cost; None where the card has no price."""
    if judge.price is None:
        return None
    read = sum(len(asked.text) for asked in prompts) / CHARACTERS_A_TOKEN
    return (read * judge.price.input + REPLY_TOKENS * len(prompts) * judge.price.output) / 1e6


@dataclass
class Endpoint:
    """Asks `judge` at `at_once` prompts a time. `wait_s`: the first wait after a refusal; it doubles with each try, and
    the service's own Retry-After comes first. `logprobs`: whether the service gives them; it is asked once."""

    judge: Judge
    at_once: int = 8
    tries: int = TRIES
    wait_s: float = WAIT_S
    timeout_s: float = TIMEOUT_S
    logprobs: bool = True
    _session: requests.Session = field(init=False)

    def __post_init__(self) -> None:
        self._url = os.environ.get(URL, self.judge.url).rstrip("/")
        self._session = requests.Session()
        again = Retry(
            total=self.tries, connect=2, read=2, backoff_factor=self.wait_s, backoff_max=60,
            status_forcelist=(408, 429, 500, 502, 503, 504),
            allowed_methods=None, raise_on_status=False, respect_retry_after_header=True,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again, pool_maxsize=self.at_once))
        secret = key()
        if secret:
            self._session.headers["Authorization"] = f"Bearer {secret}"

    def ask(self, prompts: Sequence[Asked]) -> Iterator[list[tuple[Asked, Reply]]]:
        """Replies as they come, in the order of the prompts. Raises UserError where the service is of no use."""
        waiting = list(prompts)
        if waiting:
            # Alone, so that what all requests would fail for is found once.
            yield [(waiting[0], self._reply(waiting[0]))]
        with ThreadPoolExecutor(self.at_once) as pool:
            for start in range(1, len(waiting), self.at_once):
                batch = waiting[start : start + self.at_once]
                yield list(zip(batch, pool.map(self._reply, batch), strict=True))

    def close(self) -> None:
        self._session.close()

    def _reply(self, asked: Asked) -> Reply:
        try:
            choice = self._choice(asked)
        except Refused as error:
            return Reply(error=f"the service refused it: {error}")
        text = str((choice.get("message") or {}).get("content") or "")
        first = first_token(choice)
        if first is None and self.logprobs:
            self.logprobs = False
        return Reply(first, text[:200])

    def _choice(self, asked: Asked) -> dict[str, Any]:
        body = {
            "model": self.judge.model,
            "messages": [{"role": "user", "content": asked.text}],
            "temperature": 0,
            "max_tokens": 1 if self.logprobs and self.judge.scale.digits else REPLY_TOKENS,
        }
        if self.logprobs:
            body |= {"logprobs": True, "top_logprobs": min(20, self.judge.scale.top)}
        answer = self._post(body)
        if answer.status_code == 400 and self.logprobs and "logprob" in answer.text:
            self.logprobs = False
            return self._choice(asked)
        found = self._checked(answer)
        try:
            return dict(found["choices"][0])
        except (TypeError, KeyError, IndexError, ValueError):
            raise UserError(f"{self._url} answers in another form than chat completions", AGAIN) from None

    def _post(self, body: dict[str, Any]) -> requests.Response:
        try:
            return self._session.post(f"{self._url}/chat/completions", json=body, timeout=self.timeout_s)
        except requests.Timeout:
            raise UserError(f"{self._url} gave no answer in {self.timeout_s:.0f} s", AGAIN) from None
        except requests.RequestException as error:
            slow = "Read timed out" in str(error)
            what = (
                f"gave no answer in {self.timeout_s:.0f} s"
                if slow
                else f"cannot be reached ({type(error).__name__})"
            )
            raise UserError(f"{self._url} {what}", AGAIN) from None

    def _checked(self, answer: requests.Response) -> Any:
        """The answer's content. Raises Refused for this prompt's fault, UserError for what stops all."""
        code, said = answer.status_code, message(answer)
        if code == 200:
            try:
                return answer.json()
            except ValueError:
                raise UserError(f"{self._url} answers with something that is no JSON", AGAIN) from None
        if code in (401, 403):
            raise UserError(f"{self._url} refuses the key ({said})", f"Set {KEY} or {KEY_COMMAND}.")
        if code == 402 or (code == 429 and ("quota" in said or "credit" in said or "billing" in said)):
            raise UserError(f"{self._url}: no credit is left ({said})", f"Top it up. {AGAIN}")
        if code == 404:
            raise UserError(f"{self._url} has no model {self.judge.model} ({said})", "Choose another judge.")
        if code in (400, 413, 422):
            raise Refused(said)
        what = "limits the rate of requests" if code == 429 else f"answers with status {code}"
        raise UserError(f"{self._url} {what}, after {self.tries} tries ({said})", AGAIN)


def first_token(choice: dict[str, Any]) -> dict[str, float] | None:
    """Text -> probability of the first token's alternatives; None where the service gave none."""
    try:
        tops = choice["logprobs"]["content"][0]["top_logprobs"]
        found: dict[str, float] = {}
        for top in tops:
            found[top["token"]] = found.get(top["token"], 0.0) + math.exp(min(0.0, float(top["logprob"])))
    except (TypeError, KeyError, IndexError, ValueError):
        return None
    return found or None


def message(answer: requests.Response) -> str:
    """What the service says of a refusal, in one line."""
    try:
        error = answer.json()["error"]
        said = f"{error.get('code') or error.get('type') or ''} {error.get('message') or ''}"
    except (ValueError, TypeError, KeyError, AttributeError):
        said = answer.text
    return " ".join(said.split())[:200] or f"status {answer.status_code}"
