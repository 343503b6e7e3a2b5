"""Who may sign in, and how fast passwords can be tried."""

import asyncio
import base64
import logging
import pickle
import time

import pytest
from fastapi import HTTPException

from wbc_hf.web import users as users_module
from wbc_hf.web.users import ADDRESS, MAX_ATTEMPTS, Users


@pytest.fixture
def users() -> Users:
    return Users([("ana", "secret"), ("ben", "a:b")])


def basic(words: str) -> str:
    return "Basic " + base64.b64encode(words.encode()).decode()


def test_only_the_right_password_of_a_known_user_is_right(users: Users):
    asked = [
        ("ana", "secret"),
        ("ben", "a:b"),
        ("ana", "a:b"),
        ("ana", ""),
        ("eve", "secret"),
        ("", ""),
        ("ana", "\ud800"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users_module, "FIRST_WAIT", 0.0)
        assert [asyncio.run(users.check(*it)) for it in asked] == [True, True, False, False, False, False, False]


def test_passwords_are_not_kept_in_clear(users: Users):
    asyncio.run(users.check("ana", "secret"))
    asyncio.run(users.sign_in(basic("ana:secret"), {}))
    vars(users).pop("_locks")
    kept = pickle.dumps(vars(users))
    assert b"secret" not in kept and basic("ana:secret").split()[1].encode() not in kept


def test_wrong_passwords_are_slowed_one_after_the_other_and_logged(users: Users, caplog: pytest.LogCaptureFixture):
    async def attack() -> list[bool]:
        ADDRESS.set("10.0.0.9")
        return await asyncio.gather(*(users.check("ana", str(number)) for number in range(4)))

    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(attack()) == [False] * 4
    assert time.monotonic() - started >= 0.25 + 0.5 + 1.0
    assert [record.message for record in caplog.records] == [
        f"Wrong password for 'ana' from 10.0.0.9 ({number} in a row)" for number in (1, 2, 3, 4)
    ]


def test_another_address_does_not_wait(users: Users, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(users_module, "FIRST_WAIT", 30.0)

    async def check(address: str, password: str) -> bool:
        ADDRESS.set(address)
        return await users.check("ana", password)

    assert not asyncio.run(check("10.0.0.9", "wrong"))
    started = time.monotonic()
    assert asyncio.run(check("10.0.0.7", "secret"))
    assert time.monotonic() - started < 10


def test_few_attempts_of_one_address_wait_at_a_time(users: Users, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(users_module, "FIRST_WAIT", 0.0)

    async def attack() -> list[bool | BaseException]:
        return await asyncio.gather(
            *(users.check("ana", "x") for _ in range(MAX_ATTEMPTS + 3)), return_exceptions=True
        )

    refused = [it for it in asyncio.run(attack()) if isinstance(it, HTTPException)]
    assert [it.status_code for it in refused] == [429] * 3
    assert asyncio.run(users.check("ana", "secret"))


def test_an_unknown_name_is_not_logged(users: Users, caplog: pytest.LogCaptureFixture):
    assert not asyncio.run(users.check("my-password", "ana"))
    assert "my-password" not in caplog.text and "an unknown user" in caplog.text


def test_programs_sign_in_by_header_once(users: Users, monkeypatch: pytest.MonkeyPatch):
    tokens: dict[str, str] = {}
    token = asyncio.run(users.sign_in(basic("ben:a:b"), tokens))
    assert tokens == {token: "ben"}
    monkeypatch.setattr(users, "_hash", None)  # not asked again
    assert asyncio.run(users.sign_in(basic("ben:a:b"), tokens)) == token
    tokens.clear()  # signed out
    with pytest.raises(TypeError):
        asyncio.run(users.sign_in(basic("ben:a:b"), tokens))


@pytest.mark.parametrize("header", ["", "Basic", "Basic ????", "Bearer abc", basic("ben"), basic("eve:a:b")])
def test_other_headers_sign_nobody_in(users: Users, header: str):
    tokens: dict[str, str] = {}
    assert asyncio.run(users.sign_in(header, tokens)) is None
    assert tokens == {}
