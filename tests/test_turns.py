"""Whose turn it is to have a picture read."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from wbc_hf.errors import WbcError
from wbc_hf.web import turns
from wbc_hf.web.turns import AT_A_TIME, MAX_WAITING, Lane, current_visitor


@pytest.fixture
def lane() -> Lane:
    return Lane(100)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def order_of(lane: Lane, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """In which order those get their turn who ask in this order while the lane is full."""
    answered: list[tuple[str, str]] = []

    def ask(visitor: str, session: str) -> None:
        with lane.turn(100, visitor, session):
            answered.append((visitor, session))

    threads = [threading.Thread(target=ask, args=words) for words in asked]
    with lane.turn(100, asked[0][0], asked[0][1]):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda number=number: len(lane._waiting) == number)
    for thread in threads:
        thread.join(20)
    return answered


def test_visitors_take_turns(lane: Lane):
    assert order_of(lane, [("ana", "1")] * 3 + [("ben", "2")] * 2) == [
        ("ben", "2"),
        ("ana", "1"),
        ("ben", "2"),
        ("ana", "1"),
        ("ana", "1"),
    ]


def test_more_sessions_are_no_more_turns(lane: Lane):
    asked = [("ana", str(number)) for number in range(4)] + [("ben", "5"), ("ben", "5")]
    assert [visitor for visitor, _ in order_of(lane, asked)] == ["ben", "ana", "ben", "ana", "ana", "ana"]


def test_sessions_of_one_address_take_turns(lane: Lane):
    assert order_of(lane, [("", "1"), ("", "1"), ("", "2")]) == [("", "2"), ("", "1"), ("", "1")]


def test_pixels_in_flight_are_bounded(lane: Lane):
    in_flight, most, lock = 0, 0, threading.Lock()

    def read(pixels: int, visitor: str) -> None:
        nonlocal in_flight, most
        with lane.turn(pixels, visitor, ""):
            with lock:
                in_flight += pixels
                most = max(most, in_flight)
            time.sleep(0.01)
            with lock:
                in_flight -= pixels

    threads = [
        threading.Thread(target=read, args=(pixels, str(index % 3))) for index, pixels in enumerate([60, 40] * 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 100
    with lane.turn(5000, "", ""):  # more than there are: alone
        pass


def test_so_many_at_a_time(lane: Lane):
    inside = [lane.turn(1, "ana", "") for _ in range(AT_A_TIME)]
    for it in inside:
        it.__enter__()
    waiting = threading.Thread(target=lambda: lane.turn(1, "ben", "").__enter__(), daemon=True)
    waiting.start()
    wait_until(lambda: len(lane._waiting) == 1)
    inside[0].__exit__(None, None, None)
    waiting.join(20)
    assert not lane._waiting


def test_what_fails_gives_its_turn_back(lane: Lane):
    for _ in range(AT_A_TIME + 1):
        with pytest.raises(ZeroDivisionError), lane.turn(100, "", ""):
            raise ZeroDivisionError


def test_few_requests_of_one_visitor_wait(lane: Lane, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "MAX_WAITING", 2)
    refused = []

    def ask() -> None:
        try:
            with lane.turn(100, "ana", ""):
                pass
        except WbcError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    with lane.turn(100, "ana", ""):
        for thread in threads:
            thread.start()
        wait_until(lambda: bool(refused))
    for thread in threads:
        thread.join(20)
    assert len(refused) == 1 and "2 of your requests wait" in refused[0]
    assert MAX_WAITING >= 32  # as many clients of one address may ask at a time


def test_a_cell_does_not_wait_for_large_pictures():
    with turns.turn(50_000_000):
        done = threading.Event()

        def answer_cell() -> None:
            with turns.turn(360 * 363):
                done.set()

        threading.Thread(target=answer_cell, daemon=True).start()
        assert done.wait(20)


def test_a_visitor_is_known_by_name_or_address():
    assert current_visitor() == ("", "")
    request = SimpleNamespace(username=None, client=SimpleNamespace(host="10.0.0.7"), session_hash="one")
    for username, visitor in ((None, "10.0.0.7"), ("ana", "ana")):
        request.username = username
        before = LocalContext.request.set(request)
        assert current_visitor() == (visitor, "one")
        LocalContext.request.reset(before)
