"""Asking a server for JSON, again where it is busy or away."""

import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from tailcast.errors import TailcastError

if TYPE_CHECKING:
    import httpx

__all__ = ["JsonServer"]

_TRIES = 6
_SILENT_TRIES = 2  # that no answer came to in time
_LONGEST_WAIT = 30.0  # seconds


class JsonServer:
    """A server of JSON over HTTP, safe to be asked from several threads.

    Args:
        address: For example http://localhost:8000.
        kind: Exception to raise; its sentence names the address and the cause.
        flag: The setting that a user would mend.
        connections: Requests under way at one time.
        key: Sent as a bearer token, if any.
        rate: Requests a second, at most; None for no limit.
        timeout: Seconds that an answer may take.
    """

    def __init__(
        self, address: str, kind: type[TailcastError], *, flag: str, connections: int,
        key: str = "", rate: float | None = None, timeout: float = 600.0,
    ) -> None:  # fmt: skip
        import httpx

        self.address = address.rstrip("/").removesuffix("/v1")
        self.kind = kind
        self.flag = flag
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=connections)
        self.client = httpx.Client(timeout=timeout, limits=limits, headers=headers)
        weakref.finalize(self, self.client.close)
        self.retries = 0
        self._gap = 1.0 / rate if rate else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def models(self) -> list[str]:
        """Names of the models that it serves."""
        try:
            return [one["id"] for one in self.ask("GET", "/v1/models", tries=3)["data"]]
        except (KeyError, TypeError):
            raise self.kind(
                f"the server at {self.address} lists no models: check {self.flag}."
            ) from None

    def only_model(self, flag: str) -> str:
        """Name of the model that it serves.

        Args:
            flag: The setting that names one where it serves several.
        """
        served = self.models()
        if len(served) != 1:
            raise self.kind(
                f"the server at {self.address} serves {len(served)} models "
                f"({', '.join(served[:5])}): name one with {flag}."
            )
        return served[0]

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, tries: int = _TRIES
    ) -> Any:
        """JSON of an answer; tried again where the server is busy, broken or away.

        Raises:
            TailcastError: Of the kind asked for, when all tries failed, or two of them for want
                of an answer in time, or the answer is a refusal or no JSON.
        """
        import httpx

        problem, silent = "", 0
        for attempt in range(tries):
            self._wait_for_turn()
            try:
                answer = self.client.request(method, self.address + path, json=body)
                if answer.status_code != 429 and answer.status_code < 500:
                    return self._read(answer, path)
                problem, told = f"status {answer.status_code}", answer.headers.get("retry-after")
            except httpx.HTTPError as error:
                problem, told = str(error) or type(error).__name__, None
                silent += isinstance(error, httpx.ReadTimeout)
            if silent == _SILENT_TRIES:
                break
            if attempt + 1 < tries:
                with self._lock:
                    self.retries += 1
                time.sleep(_pause(attempt, told))
        raise self.kind(
            f"the server at {self.address}{path} does not answer ({problem}): start it, or "
            f"check {self.flag}; what was done before is kept."
        )

    def _wait_for_turn(self) -> None:
        if not self._gap:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        time.sleep(max(0.0, turn - time.monotonic()))

    def _read(self, answer: "httpx.Response", path: str) -> Any:
        if answer.status_code >= 400:
            raise self.kind(
                f"the server at {self.address}{path} refused (status {answer.status_code}: "
                f"{' '.join(answer.text.split())[:200]}): check {self.flag}, the model's name "
                "and the key."
            )
        try:
            return answer.json()
        except ValueError:
            raise self.kind(
                f"the server at {self.address}{path} gave no JSON but {answer.text[:60]!r}: "
                f"check {self.flag}."
            ) from None


def _pause(attempt: int, told: str | None) -> float:
    """Seconds to wait: what the server asked for, else twice as long every time, spread."""
    if told and told.replace(".", "", 1).isdigit():
        return min(float(told), _LONGEST_WAIT)
    pause: float = min(0.2 * 2**attempt, _LONGEST_WAIT) * random.uniform(0.75, 1.25)
    return pause
