"""Turns: what is timed, what is left out, and a contender that fails."""

import pytest

from emperf.core.errors import UserError
from emperf.tools.bench import turns
from emperf.tools.bench.turns import Channel, Contender, pace


class Asked(Channel):
    """A channel with its requests ready, which keeps the replies."""

    def __init__(self, *requests: dict[str, int]) -> None:
        self.requests, self.replies = list(requests), list[dict[str, float]]()

    def wait(self) -> dict[str, int]:
        return self.requests.pop(0)

    def reply(self, **facts: float) -> None:
        self.replies.append(facts)


def test_the_first_steps_of_a_turn_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "peak_rate", lambda: 5.0)
    channel = Asked({"left_out": 2, "steps": 2}, {"left_out": 1, "steps": 1}, {"left_out": 1, "steps": 1})
    clock = pace(channel)
    next(clock)
    for step in range(1, 7):
        clock.send((step, 10 * step, 100 * step))
    assert [reply["tokens"] for reply in channel.replies] == [3 + 4, 6]
    assert channel.replies[0]["positions"] == 70 and channel.replies[0]["heads"] == 700
    assert all(reply["peak"] == 5.0 and reply["seconds"] >= 0 for reply in channel.replies)


def test_a_contender_that_fails_is_told_with_its_last_words() -> None:
    with (
        Contender("sampling", {"who": "emperf"}, threads=1) as broken,
        pytest.raises(UserError, match="KeyError"),
    ):
        broken.turn(batch=1)
