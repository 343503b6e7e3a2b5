"""What others did to a specimen while a visitor looked at it: nobody overrules a word that they do not know."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from wbc_hf.errors import WbcError
from wbc_hf.reports import history_lines
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear import About, Action, ChangedMeanwhileError, Event, Review, Specimen

# What a program does by itself is shown where it is done.
_BY_PEOPLE = (
    *(Action.REVIEWED, Action.WITHDRAWN, Action.UNDONE, Action.POINTED_AT, Action.DISCARDED, Action.TAKEN_OUT),
    *(Action.PUT_BACK, Action.DESCRIBED, Action.SIGNED, Action.AMENDED),
)
_SHOWN = 5  # acts of others that one message names
_ATTEMPTS = 20  # to write between two others


class Meanwhile:
    """What one visitor knows of a specimen that others may change, on this server or on another one.

    Args:
        specimen: As it is shown from now on.

    Attributes:
        said: What others did before the visitor acted last, or while they did, to be told; "" where they did nothing.
    """

    def __init__(self, specimen: Specimen):
        self._specimen, self.said = specimen, ""
        self._seen, self._own = specimen.last_event, set[int]()
        self.look(fields=True)

    def look(self, *, fields: bool = False) -> str:
        """Take note that the visitor is shown the specimen as it is now; the fields of it too, or not.

        Returns:
            What others did since the visitor looked last, in words, to be told.
        """
        events = self._specimen.history_since(self._seen)
        said = self._words(events)
        self._seen += len(events)
        self._own = {it for it in self._own if it > self._seen}
        self._cells = self._specimen.cells
        if fields:
            self._about = self._specimen.about
        return said

    @contextmanager
    def acting(self, who: str = "") -> Iterator[None]:
        """Take over what others did before the visitor acts. All of it is shown and told afterwards.

        Args:
            who: Name of the visitor.

        Raises:
            WbcError: The specimen was deleted, or the store cannot be read.
        """
        self.said = ""
        try:
            with self.doing(who):
                yield
        except ChangedMeanwhileError:
            self.said = self.look()
            raise
        except WbcError:
            self.said = self.news()
            raise
        self.said = self.look()

    @contextmanager
    def doing(self, who: str = "") -> Iterator[None]:
        """Like `acting`, where what others did is not shown."""
        self._specimen.catch_up()
        before, name = self._specimen.last_event, escape_surrogates(who.strip())
        try:
            yield
        finally:
            # Others may act at the same time.
            self._own |= {it.number for it in self._specimen.history_since(before) if it.who == name}

    def news(self, until: int | None = None) -> str:
        """What others did since the visitor looked, in words; up to the event with this number."""
        since = self._specimen.history_since(self._seen)
        return self._words([it for it in since if until is None or it.number <= until])

    def _words(self, since: Iterable[Event]) -> str:
        events = [it for it in since if it.number not in self._own]
        lines = [line for _, line in history_lines([it for it in events if it.action in _BY_PEOPLE])]
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        return "; ".join(lines[:_SHOWN]) + more

    def known(self, numbers: Iterable[int]) -> dict[int, Review | None]:
        """The reviews of cells that the visitor was shown, by number."""
        return {number: self._cells[number - 1].review for number in numbers if 1 <= number <= len(self._cells)}

    def describe(self, who: str, **given: str | float | None) -> None:
        """Change what the visitor wrote in the fields of the specimen. What they left stays as others wrote it.

        Args:
            who: Name of the visitor.
            given: The fields, as for `Specimen.describe`.

        Raises:
            ChangedMeanwhileError: Somebody else wrote something else meanwhile, which stays; the others are kept.
            WbcError: From `Specimen.describe`.
        """
        written = {name: value for name, value in given.items() if value != getattr(self._about, name)}
        with self.doing(who):
            lost, now = self._write(who, written)
            known = given | {name: getattr(now, name) for name in lost}
            self._about = replace(self._about, **known)
        if lost:
            raise ChangedMeanwhileError(" ".join(self._describe_lost(name, written[name]) for name in lost))

    def _write(self, who: str, written: dict[str, str | float | None]) -> tuple[list[str], About]:
        """Keep what nobody else wrote meanwhile. Returns the names of the others, and what is known before."""
        for left in reversed(range(_ATTEMPTS)):
            now = self._specimen.about
            lost = [it for it in written if getattr(now, it) not in (getattr(self._about, it), written[it])]
            kept = {name: value for name, value in written.items() if name not in lost}
            try:
                self._specimen.describe(who, {name: getattr(now, name) for name in kept}, **kept)
                break
            except ChangedMeanwhileError:  # in the moment since
                if not left:
                    raise
        return lost, now

    def _describe_lost(self, name: str, value: str | float | None) -> str:
        history = reversed(self._specimen.history)
        event = next((it for it in history if it.action is Action.DESCRIBED and it.field == name), None)
        who, after = (event.who or "somebody", event.after or "nothing") if event else ("somebody", "something else")
        title, yours = name.replace("_", " ").capitalize(), value or "nothing"
        return f"{title}: {who} wrote “{after}” meanwhile, and you “{yours}”. Write yours again if it holds."
