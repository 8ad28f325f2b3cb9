"""What happens at the API server, heard through kopf, which lists, watches and comes back.

kopf has a thread and an event loop of its own: at its end it cancels every task that it does not know. Only handlers of
raw events are used, which make kopf write nothing: no finalizer, no annotation, no Event, no peering.
Never: what an event means.
Source: kopf's embedding guide.
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from replicator.cluster.access import Access
from replicator.cluster.kinds import Kind, Object
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe import logs

if TYPE_CHECKING:
    import kopf

Hear = Callable[[Kind, Object, bool], None]
"""The kind, the object as it is or last was, and whether it is gone."""

_LOGIN_S = 300.0
"""A kubelet replaces a service account's token well before its end; so does kopf what it was given."""
_IDLE_S = 0.3
"""kopf keeps a task for each object of an event; with its usual 5 s, a fleet's heartbeats are as many tasks."""
_END_S = 10.0

log = logs.get("operator")


async def watch(
    access: Access, kinds: tuple[Kind, ...], *, namespace: str, hear: Hear, ready: Callable[[], None]
) -> None:
    """Call `hear` on this event loop for every object and for every change, for ever; `ready` once it has begun.

    Raises ReplicatorError when kopf ends by itself.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()
    stop = threading.Event()

    def here(deed: Callable[..., None], *arguments: Any) -> None:
        if not stop.is_set():
            loop.call_soon_threadsafe(deed, *arguments)

    def run() -> None:
        problem: BaseException | None = None
        try:
            registry = _registry(access, kinds, hear=lambda *event: here(hear, *event), ready=lambda: here(ready))
            asyncio.run(_operate(registry, namespace=namespace, stop=stop))
        except BaseException as exc:  # noqa: BLE001 -- told to whoever waits
            problem = exc
        here(ended.set_result, problem)

    thread = threading.Thread(target=run, name="kopf", daemon=True)
    thread.start()
    try:
        problem = await ended
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, _END_S)
    if isinstance(problem, ReplicatorError):
        raise problem
    raise ReplicatorError(f"kopf has ended: {problem or 'without a reason'}")


def _registry(
    access: Access, kinds: tuple[Kind, ...], *, hear: Hear, ready: Callable[[], None]
) -> "kopf.OperatorRegistry":
    try:
        import kopf  # noqa: PLC0415  # half a second and 40 MiB that no other command needs
    except ImportError:
        fix = "Install replicator with its extra: replicator[operator]"
        raise ConfigError(where="operator", problem="kopf is not installed", fix=fix) from None

    async def start(**_: Any) -> None:  # kopf would call a plain function on a thread
        ready()

    async def login(**_: Any) -> "kopf.ConnectionInfo":
        return _login(access)

    registry = kopf.OperatorRegistry()
    kopf.on.startup(registry=registry)(start)
    kopf.on.login(registry=registry)(login)
    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(_handler(kind, hear))
    return registry


async def _operate(registry: "kopf.OperatorRegistry", *, namespace: str, stop: threading.Event) -> None:
    import kopf  # noqa: PLC0415

    # Signals are the main thread's, which ends this one.
    logs.silence("kopf._core.reactor.running", "OS signals are ignored")
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # needs the right to list all namespaces and definitions
    settings.queueing.idle_timeout = _IDLE_S
    settings.watching.chunk_size = 500
    await kopf.operator(
        registry=registry,
        settings=settings,
        clusterwide=not namespace,
        namespaces=[namespace] if namespace else [],
        standalone=True,
        stop_flag=stop,
    )


def _handler(kind: Kind, hear: Hear) -> Callable[..., Any]:
    async def handle(event: Any, **_: Any) -> None:
        hear(kind, event["object"], event["type"] == "DELETED")

    handle.__name__ = f"hear_{kind.plural}"
    return handle


def _login(access: Access) -> "kopf.ConnectionInfo":
    import kopf  # noqa: PLC0415

    words = {
        "ca_data": access.authority,
        "certificate_data": access.certificate,
        "private_key_data": access.key,
    }
    return kopf.ConnectionInfo(
        server=access.server,
        token=access.token().get_secret_value() or None,
        default_namespace=access.namespace,
        expiration=datetime.now(UTC) + timedelta(seconds=_LOGIN_S),
        **{name: pem.read() for name, pem in words.items() if pem},  # type: ignore[arg-type]
    )
