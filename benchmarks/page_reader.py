"""A reader of the page as programs see one: what a browser sends, over HTTP, and what it gets."""

from uuid import uuid4

import httpx

TIMEOUT = 60  # seconds for one response


class PageReader:
    """One tab of a page with a store.

    Args:
        url: Of the page.

    Raises:
        httpx.HTTPError: From every method, where the page does not answer, or not to the end.
    """

    def __init__(self, url: str):
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT)
        self._session = {"session_hash": uuid4().hex}
        config = self._http.get("config").raise_for_status().json()
        self._functions = {it["api_name"]: it for it in config["dependencies"]}
        self._values = {it["id"]: it["props"].get("value") for it in config["components"]}
        self._fields = {it["props"].get("label"): it["id"] for it in config["components"]}

    def open(self, key: str) -> bool:
        """Open a specimen of the work list; whether it is shown."""
        return self._call("on_list", {"action": "open", "number": 1, "value": key}, {})

    def review(self, cell: int, label: str | None, who: str) -> bool:
        """Say what a cell is; whether that was acknowledged."""
        return self._call("on_action", {"action": "label", "number": cell, "value": label}, {"Reviewed by": who})

    def comment(self, text: str, who: str) -> bool:
        """Write the comment of the specimen; whether that was acknowledged."""
        return self._call("on_field", None, {"Comment": text, "Reviewed by": who})

    def _call(self, name: str, event: dict | None, fields: dict[str, str]) -> bool:
        function = self._functions[name]
        self._values |= {self._fields[label]: value for label, value in fields.items()}
        question = {"data": [self._values[it] for it in function["inputs"]], "fn_index": function["id"]}
        question |= {"event_data": event} | self._session
        self._http.post("gradio_api/queue/join", json=question).raise_for_status()
        answer = self._http.get("gradio_api/queue/data", params=self._session).raise_for_status().text
        return '"success":true' in answer and "wbc-problem" not in answer
