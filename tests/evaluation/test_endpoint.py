"""A judge behind an endpoint: replies, refusals, and every way in which a service can be of no use."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.cards import one_line

from emperf.catalog.judges import ALIGNED, Judge, judge
from emperf.core.errors import UserError
from emperf.evaluation.judges import endpoint
from emperf.evaluation.judges.endpoint import Endpoint
from emperf.evaluation.judges.prompts import prompt
from emperf.evaluation.judges.replies import Reply

Answer = Callable[[dict[str, Any], int], tuple[int, Any]]
PROMPTS = [prompt("Rate it.", ALIGNED, "Why?", f"So {i}.") for i in range(5)]


class Service:
    """A service of the test's own. `answer`: (request, how many came before) -> (status, body); `seen`: requests."""

    def __init__(self, answer: Answer) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        lock, service = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    before = len(service.seen)
                    service.seen.append(body)
                    service.headers.append(self.headers)
                status, said = answer(body, before)
                text = said if isinstance(said, str) else json.dumps(said)
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Service]]:
    started: list[Service] = []
    for name in ("OPENAI_API_KEY", endpoint.KEY, endpoint.KEY_COMMAND):
        monkeypatch.delenv(name, raising=False)

    def start(answer: Answer) -> Service:
        started.append(Service(answer))
        monkeypatch.setenv(endpoint.URL, started[-1].url)
        return started[-1]

    yield start
    for one in started:
        one.stop()


def chosen(tops: dict[str, float] | None, text: str = "85") -> dict[str, Any]:
    given = None
    if tops is not None:
        listed = [{"token": token, "logprob": math.log(p)} for token, p in tops.items()]
        given = {"content": [{"token": text, "top_logprobs": listed}]}
    return {"choices": [{"message": {"content": text}, "logprobs": given}]}


def failed(code: str, said: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": said}}


def asked(used: Judge | None = None, **how: Any) -> list[Reply]:
    found = Endpoint(
        used or judge("gpt-4o"), at_once=3, **({"tries": 2, "wait_s": 0.01, "timeout_s": 2.0} | how)
    )
    try:
        return [reply for batch in found.ask(PROMPTS) for _, reply in batch]
    finally:
        found.close()


def test_the_first_tokens_probabilities_are_read(serve: Callable[[Answer], Service]) -> None:
    service = serve(lambda body, _: (200, chosen({"85": 0.75, "90": 0.25})))
    found = asked()
    assert len(found) == 5
    assert all(one.first == pytest.approx({"85": 0.75, "90": 0.25}) for one in found)
    body = service.seen[0]
    assert body["temperature"] == 0 and body["top_logprobs"] == 20 and body["model"] == "gpt-4o-2024-08-06"
    assert "Authorization" not in service.headers[0]


def test_the_key_is_from_a_command_or_the_environment(
    serve: Callable[[Answer], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(lambda body, _: (200, chosen({"85": 1.0})))
    monkeypatch.setenv(endpoint.KEY, "from-environment")
    asked()
    assert service.headers[-1]["Authorization"] == "Bearer from-environment"
    monkeypatch.setenv(endpoint.KEY_COMMAND, "echo from-command")
    asked()
    assert service.headers[-1]["Authorization"] == "Bearer from-command"
    monkeypatch.setenv(endpoint.KEY_COMMAND, "false")
    with pytest.raises(UserError) as raised:
        asked()
    one_line(raised, endpoint.KEY_COMMAND)


def test_a_service_without_log_probabilities_is_read_as_text(serve: Callable[[Answer], Service]) -> None:
    service = serve(lambda body, _: (200, chosen(None, "85")))
    assert [one.text for one in asked()] == ["85"] * 5
    assert "logprobs" in service.seen[0] and "logprobs" not in service.seen[-1]


def test_one_that_refuses_to_give_them_is_asked_without(serve: Callable[[Answer], Service]) -> None:
    def answer(body: dict[str, Any], _: int) -> tuple[int, Any]:
        if "logprobs" in body:
            return 400, failed("unsupported", "logprobs are not available with this model")
        return 200, chosen(None, "40")

    service = serve(answer)
    assert [one.text for one in asked()] == ["40"] * 5
    assert sum("logprobs" in body for body in service.seen) == 1


def test_what_passes_is_tried_again(serve: Callable[[Answer], Service]) -> None:
    def answer(body: dict[str, Any], before: int) -> tuple[int, Any]:
        return (429, failed("rate_limit", "slow down")) if before in (0, 3) else (200, chosen({"85": 1.0}))

    service = serve(answer)
    assert len(asked()) == 5 and len(service.seen) == 7


def test_a_prompt_that_is_refused_is_missing_and_the_others_are_judged(
    serve: Callable[[Answer], Service],
) -> None:
    def answer(body: dict[str, Any], _: int) -> tuple[int, Any]:
        refused = "So 2." in body["messages"][0]["content"]
        return (400, failed("content_filter", "not this")) if refused else (200, chosen({"85": 1.0}))

    serve(answer)
    found = asked()
    assert [bool(one.error) for one in found] == [False, False, True, False, False]
    assert "not this" in found[2].error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((429, failed("rate_limit", "slow down")), ["limits the rate", "not asked again"]),
        ((429, failed("insufficient_quota", "you exceeded your quota")), ["no credit", "quota"]),
        ((402, failed("payment", "pay")), ["no credit"]),
        ((401, failed("invalid_api_key", "wrong key")), ["refuses the key", endpoint.KEY]),
        ((404, failed("model_not_found", "no such model")), ["no model gpt-4o-2024-08-06"]),
        ((500, "an error\npage"), ["status 500"]),
        ((200, "<html>prose</html>"), ["no JSON"]),
        ((200, {"answer": "prose"}), ["another form"]),
        ((200, {"choices": []}), ["another form"]),
    ],
)
def test_a_service_of_no_use_is_one_line(
    serve: Callable[[Answer], Service], answer: tuple[int, Any], words: list[str]
) -> None:
    serve(lambda body, _: answer)
    with pytest.raises(UserError) as raised:
        asked()
    one_line(raised, *words)


def test_a_service_that_is_down_or_silent(
    serve: Callable[[Answer], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(endpoint.URL, "http://127.0.0.1:9/v1")
    with pytest.raises(UserError) as raised:
        asked()
    one_line(raised, "cannot be reached", "not asked again")

    def slowly(body: dict[str, Any], _: int) -> tuple[int, Any]:
        threading.Event().wait(1.0)
        return 200, chosen({"85": 1.0})

    serve(slowly)
    with pytest.raises(UserError) as raised:
        asked(timeout_s=0.1)
    one_line(raised, "gave no answer in 0 s")


def test_prose_is_missing(serve: Callable[[Answer], Service]) -> None:
    from emperf.evaluation.judges.replies import judgement

    serve(lambda body, _: (200, chosen(None, "I think this answer is rather good.")))
    used = judge("gpt-4o")
    assert [judgement(one, used.scale).kind for one in asked(used)] == ["missing"] * 5


def test_the_cost_is_told_before() -> None:
    used = judge("gpt-4o")
    million = [prompt("x" * 4_000, ALIGNED, "Why?", "So.")] * 1000
    estimate = endpoint.cost(used, million)
    assert estimate is not None and 2.5 < estimate < 3.0
    assert endpoint.cost(replace(used, price=None), million) is None
