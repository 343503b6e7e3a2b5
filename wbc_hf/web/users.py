"""Who may use the page: names and passwords, and how fast passwords can be tried."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections import Counter
from collections.abc import MutableMapping, Sequence
from contextvars import ContextVar

from fastapi import HTTPException

_log = logging.getLogger(__name__)

# Address of the client whose request is answered. Gradio asks for a name and a password, and does not say of whom.
ADDRESS: ContextVar[str] = ContextVar("address", default="")

# An attempt after a wrong password waits: 0.25 s, 0.5 s, 1 s … Attempts from one address come one after the other.
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0  # seconds
FORGET_AFTER = 900.0  # seconds without a wrong password
MAX_ATTEMPTS = 8  # from one address that wait at a time
# scrypt with 16 MiB, some 50 ms.
_COST, _BLOCK_SIZE, _SALT_BYTES = 2**14, 8, 16


class Users:
    """Names and salted hashes (scrypt) of passwords. The passwords themselves are not kept.

    Args:
        users: Names and passwords.
    """

    def __init__(self, users: Sequence[tuple[str, str]]):
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._hashes = {name: self._hash(password) for name, password in users}
        self._failures: dict[str, tuple[int, float]] = {}  # by address: how many, and when the last was
        self._locks: dict[str, asyncio.Lock] = {}
        self._attempts: Counter[str] = Counter()
        # Of headers that were right, so that a program need not sign in anew with each request.
        self._tokens: dict[bytes, str] = {}

    async def check(self, name: str, password: str) -> bool:
        """Whether a password is a user's. Waits first if wrong ones came from the same address shortly before.

        Raises:
            HTTPException: 429, too many attempts from this address wait already.
        """
        address = ADDRESS.get()
        if self._attempts[address] >= MAX_ATTEMPTS:
            raise HTTPException(429, "Too many attempts to sign in from this address. Try again in a minute.")
        self._attempts[address] += 1
        try:
            async with self._locks.setdefault(address, asyncio.Lock()):
                await asyncio.sleep(self._wait(address))
                right = await asyncio.to_thread(self._is_right, name, password)
                self._note(address, name, right)
        finally:
            self._attempts[address] -= 1
            if not self._attempts[address]:
                del self._attempts[address], self._locks[address]
        return right

    async def sign_in(self, authorization: str, tokens: MutableMapping[str, str]) -> str | None:
        """Sign a program in by its header "Authorization: Basic …".

        Args:
            authorization: The header.
            tokens: Names of those who are signed in, by the token that their cookie holds; a new one is added.

        Returns:
            The token; None if the header is another or wrong.

        Raises:
            HTTPException: From `check`.
        """
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        key = hmac.digest(self._salt, encoded.encode(), "sha256")
        if (token := self._tokens.get(key, "")) in tokens:
            return token
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        if not await self.check(name, password):
            return None
        token = self._tokens[key] = secrets.token_urlsafe(16)
        tokens[token] = name
        return token

    def _hash(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(errors="surrogatepass"), salt=self._salt, n=_COST, r=_BLOCK_SIZE, p=1)

    def _is_right(self, name: str, password: str) -> bool:
        # Of an unknown name too: how long an answer takes tells nothing.
        return hmac.compare_digest(self._hash(password), self._hashes.get(name, b""))

    def _wait(self, address: str) -> float:
        failures, last = self._failures.get(address, (0, 0.0))
        if not failures or time.monotonic() - last > FORGET_AFTER:
            return 0.0
        return min(FIRST_WAIT * 2 ** (failures - 1), LONGEST_WAIT)

    def _note(self, address: str, name: str, right: bool) -> None:
        now = time.monotonic()
        self._failures = {it: noted for it, noted in self._failures.items() if now - noted[1] <= FORGET_AFTER}
        if right:
            self._failures.pop(address, None)
            return
        failures = self._failures.get(address, (0, 0.0))[0] + 1
        self._failures[address] = min(failures, 32), now
        # Not the name of one who is unknown: it may be a password in the wrong field.
        who = repr(name) if name in self._hashes else "an unknown user"
        _log.warning("Wrong password for %s from %s (%d in a row)", who, address or "an unknown address", failures)
