"""What the program knows of a source, and the one place that knows which there are."""

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Protocol

from replicator.config.settings import Settings
from replicator.config.sources.env import EnvSource
from replicator.config.sources.files import FilesSource
from replicator.errors import ConfigError
from replicator.model import Target
from replicator.observe.standing import Report


class Source(Protocol):
    """Where targets come from. Each answer is a complete, checked configuration or a ConfigError."""

    def read(self) -> tuple[Target, ...]:
        """The targets as the words are now. Raises ConfigError."""
        ...

    def changes(self) -> AsyncIterator[tuple[Target, ...] | ConfigError]:
        """The first answer at once, then one each time it differs from the last; it never ends by itself."""
        ...

    @property
    def heartbeat_s(self) -> float:
        """Seconds between reports to whoever tells the targets; 0 where nobody is told."""
        ...

    async def tell(self, report: Report) -> None:
        """Report how replication stands; also called after each new configuration. Raises ReplicatorError."""
        ...


def make_source(
    settings: Settings, environ: Mapping[str, str], *, origins: Mapping[str, str] = MappingProxyType({})
) -> Source:
    """The source that `settings.source` names. `origins` as loaded with the settings, for better messages."""
    if settings.source == "files":
        return FilesSource(settings, environ)
    if settings.source == "edge-api":
        from replicator.config.sources.edge_api import EdgeApiSource  # noqa: PLC0415  # the HTTP client is not for all

        return EdgeApiSource(settings)
    if settings.source == "kubernetes":
        from replicator.config.sources.kubernetes import KubernetesSource  # noqa: PLC0415  # nor is aiohttp

        return KubernetesSource(settings, environ)
    return EnvSource(settings, environ, origins=origins)
