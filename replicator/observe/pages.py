"""What is answered at which path: metrics, health, readiness, status, where one file stands, a page; notifications.

Read-only, but for /notify: it takes names that are worth a look, from whoever has the token. Never: a request of ours
because of one of theirs, a debug handler, a file but those of the page. The health check answers for this process
alone: a remote fault never fails it, or an orchestrator would restart a replicator that only has to wait.
Source: Kubernetes' liveness and readiness probes; RFC 6750 and 7617.
"""

import base64
import functools
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import parse_qs

from pydantic import SecretStr

from replicator.observe import explanation, logs, overview, words
from replicator.observe.feed import Feed
from replicator.observe.metrics import Metrics
from replicator.observe.notifications import Notice, notice_of
from replicator.observe.request import Answer, Refused, Request, Stream
from replicator.observe.status import Snapshot, to_json

log = logs.get("http")

_NOTICE_BYTES = 2**20
"""A store sends some hundred bytes an event."""
_NOTICE_TIMEOUT_S = 10.0
_CHALLENGE = 'Bearer, Basic realm="replicator"'
_JSON = "application/json; charset=utf-8"

_T = TypeVar("_T")

Explain = Callable[[str], Callable[[], explanation.Explanation]]
"""Takes what is asked for and gives what looks there: that blocks, and may be called on any thread."""


class Ask(Protocol):
    """Computes something where what it is about is at home. Raises Refused when that takes too long."""

    def __call__(self, deed: Callable[[], _T]) -> _T: ...


@dataclass(frozen=True, slots=True)
class Inbox:
    """Where event notifications go. `token` is what their senders have to show."""

    token: SecretStr
    take: Callable[[Notice], None]


class Pages:
    """Every path with its answer. `snapshot`, `complaints`, the inbox and `explain` are called through `ask`."""

    def __init__(
        self,
        *,
        ask: Ask,
        snapshot: Callable[[], Snapshot],
        metrics: Metrics,
        complaints: Callable[[], Sequence[str]],
        inbox: Inbox | None,
        explain: Explain | None,
    ) -> None:
        self._ask = ask
        self._snapshot = snapshot
        self._metrics = metrics
        self._complaints = complaints
        self._inbox = inbox
        self._explain = explain
        self._feed = Feed(functools.partial(ask, snapshot))
        computed = {
            "/status": self._status,
            "/readyz": self._readiness,
            "/healthz": self._health,
            "/metrics": self._exposition,
            "/": self._page,
        }
        self._answers: dict[str, Callable[[], Answer | Stream]] = {
            **{path: functools.partial(ask, page) for path, page in computed.items()},
            **{path: functools.partial(overview.file_at, path) for path in overview.FILES},
            "/events": self._events,
        }

    def respond(self, request: Request) -> Answer | Stream:
        """The answer to `request`, on whatever thread. Raises Refused."""
        if request.path == "/notify" and self._inbox:
            return self._notify(request, self._inbox)
        if request.path == "/explain" and self._explain:
            return self._explanation(request, self._explain)
        answer = self._answers.get(request.path)
        if not answer:
            raise Refused(404, "there is no such page; / lists what is here")
        check_reads(request)
        return answer()

    def _explanation(self, request: Request, explain: Explain) -> Answer:
        """The disk is looked at on this thread, so that the event loop never waits for it."""
        check_reads(request)
        asked = _asked_in(request.query)
        look = self._ask(lambda: explain(asked))
        return Answer(200, json.dumps(explanation.to_json(look())).encode(), _JSON)

    def _exposition(self) -> Answer:
        self._metrics.publish(self._snapshot())
        return Answer(200, self._metrics.render(), self._metrics.content_type)

    def _health(self) -> Answer:
        return _verdict_of("alive", self._complaints())

    def _readiness(self) -> Answer:
        now = self._snapshot()
        return _verdict_of("ready", () if now.is_ready else now.not_ready or ("not ready",))

    def _status(self) -> Answer:
        return Answer(200, json.dumps(to_json(self._snapshot())).encode(), _JSON)

    def _page(self) -> Answer:
        return overview.page(self._snapshot())

    def _events(self) -> Stream:
        return Stream(self._feed.events(), "text/event-stream; charset=utf-8")

    def _notify(self, request: Request, inbox: Inbox) -> Answer:
        """204, once it was handed on."""
        if request.method != "POST":
            raise Refused(405, "notifications are posted", Allow="POST")
        try:
            notice = _notice_in(request, inbox.token)
        except Refused:
            self._metrics.notifications.labels("refused").inc()
            raise
        if notice.is_subscription:
            fix = f"If it is yours, open {notice.confirm_url or 'its SubscribeURL'} once; replicator follows no link"
            log.warning("notifications wait for a confirmation", fix=fix)

        def hand_on() -> Answer:
            inbox.take(notice)
            return Answer(204)

        return self._ask(hand_on)


def check_reads(request: Request) -> None:
    if request.method not in {"GET", "HEAD"}:
        raise Refused(405, "this page can be read only", Allow="GET,HEAD")


def _asked_in(query: str) -> str:
    """What /explain?path=... asks for, percent-encoded bytes of any name. Raises Refused."""
    if len(query) > explanation.QUERY_BYTES:
        raise Refused(400, f"the query is longer than {explanation.QUERY_BYTES} bytes")
    try:
        values = parse_qs(query, strict_parsing=True, errors="surrogateescape", max_num_fields=1)
    except ValueError:
        values = {}
    match values:
        case {"path": [asked]} if query.isascii():
            return asked
    raise Refused(400, "the query has to be path= and a path or key, percent-encoded")


def _verdict_of(good: str, problems: Sequence[str]) -> Answer:
    lines = [words.escape(problem) for problem in problems] or [good]
    return Answer(503 if problems else 200, "".join(f"{line}\n" for line in lines).encode())


def _notice_in(request: Request, token: SecretStr) -> Notice:
    """What the request brings. Raises Refused; nobody without the token gets a body read."""
    if not _is_sender(request.headers.get("Authorization", ""), token):
        raise Refused(401, "the token is missing or wrong", WWW_Authenticate=_CHALLENGE)
    body = request.body(at_most=_NOTICE_BYTES, within_s=_NOTICE_TIMEOUT_S)
    try:
        return notice_of(body)
    except ValueError as error:
        raise Refused(400, str(error)) from None


def _is_sender(authorization: str, token: SecretStr) -> bool:
    """Whether a request shows the token: as bearer, or as password, for SNS knows only user:password@host."""
    scheme, _, shown = authorization.partition(" ")
    if scheme.lower() == "bearer":
        password = shown.encode("latin-1")  # which is how the bytes of a header were read
    elif scheme.lower() == "basic":
        try:
            password = base64.b64decode(shown.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return False
    else:
        return False
    return hmac.compare_digest(password.strip(), token.get_secret_value().encode())
