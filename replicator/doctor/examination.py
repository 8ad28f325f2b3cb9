"""The whole examination: the targets that settings and words make, then the device, then the endpoints.

Runs beside a running replicator: it needs no lock and makes nothing that lasts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain

from replicator.config.settings import Settings
from replicator.doctor import device, endpoint
from replicator.doctor.findings import Answer, Finding, carry_out, of_error, ok, warning
from replicator.errors import ConfigError
from replicator.model import Target
from replicator.observe import words
from replicator.stores.files.export import ignore_lease_signals

CONFIGURATION = "targets"
"""The check that fails for the configuration."""


def examine(settings: Settings, read: Callable[[], Sequence[Target]], *, is_writing: bool = False) -> Iterator[Finding]:
    """Findings, each as soon as it is known; `read` gives the targets or raises ConfigError. For the main thread.

    `is_writing` allows objects of the doctor's own, which are removed again.
    """
    ignore_lease_signals()
    targets: Sequence[Target] = ()
    try:
        targets = read()
        answer = _mapped(targets)
    except ConfigError as error:
        answer = of_error(error)
    yield Finding(CONFIGURATION, "", answer.verdict, answer.found, answer.fix)
    with closing(endpoint.checks(settings, targets, is_writing=is_writing)) as of_endpoints:  # also when interrupted
        yield from carry_out(chain(device.checks(settings, targets), of_endpoints))


def _mapped(targets: Sequence[Target]) -> Answer:
    if not targets:
        return warning("nothing is mapped", "set REPLICATOR_EGRESS or REPLICATOR_INGRESS, or the workload's data paths")
    return ok(f"{words.count(len(targets), 'target')}: {', '.join(target.id for target in targets[:10])}")
