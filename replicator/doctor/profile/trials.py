"""The trials of one endpoint, in their order: what needs no object, then, where it is allowed, what does.

All happens beneath one random place under a target's prefix (`stores.s3.sandbox`), which is cleared at the end and
whenever the examination is given up. Never: a key elsewhere; a trial of ingress prefixes, which belong to others.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from replicator.doctor.findings import Answer, Check, ok, warning
from replicator.doctor.profile import listings, names, objects, uploads
from replicator.errors import TransferError
from replicator.model import Direction, Target
from replicator.observe import words
from replicator.report import url_of
from replicator.stores.s3.direct import Direct
from replicator.stores.s3.network import Limits
from replicator.stores.s3.sandbox import Sandbox
from replicator.stores.s3.table import ignore

Trial = Callable[[Sandbox], Answer]

_HARMLESS: tuple[tuple[str, Trial], ...] = (
    ("missing object", objects.missing),
    ("old signature", listings.old_signature),
)
"""What makes nothing at all."""

_UNFINISHED: tuple[tuple[str, Trial], ...] = (("parts", uploads.parts),)
"""What begins an upload and aborts it."""

_WRITTEN: tuple[tuple[str, Trial], ...] = (
    ("ETag", objects.etags),
    ("empty object", objects.empty),
    ("metadata", objects.metadata),
    ("conditional get", objects.conditional_get),
    ("conditional put", objects.conditional_put),
    ("ranges", objects.ranges),
    ("checksums", objects.checksums),
    ("trailing checksum", objects.trailing_checksum),
    ("complete upload", uploads.completed),
    ("upload errors", uploads.mistaken),
    ("names", names.carried),
    ("listing", listings.pages),
    ("delete", objects.deleted),
)
"""What makes objects."""


def checks(target: Target, limits: Limits, *, within_s: float, is_writing: bool) -> Iterator[Check]:
    """The trials at a target's endpoint; `within_s` bounds each. Needs a connection without a proxy.

    They need what a gate of the target's URL stands for.
    """
    url = url_of(target)
    box = Sandbox(Direct(target.storage, limits, ignore), target.prefix, target.storage.bucket)
    trial = partial(_trial, box, url, within_s)
    with closing(_Clearing(box)):
        yield from (trial(name, look) for name, look in _HARMLESS)
        if target.direction is Direction.EGRESS:
            if is_writing:
                yield trial("object", objects.whole, is_gate=True)
            yield from (trial(name, look) for name, look in _UNFINISHED + (_WRITTEN if is_writing else ()))
        if box.has_made:
            yield Check("left behind", url, partial(left_behind, box), within_s)


def left_behind(box: Sandbox) -> Answer:
    """Whether everything is gone again, of earlier examinations too."""
    try:
        others = box.others()
    except TransferError:  # listing has a check of its own
        others = []
    if stays := box.clear():
        found = f"{words.count(len(stays), 'object')} or uploads stay beneath {box.prefix}"
        return warning(found, "remove them; allow s3:DeleteObject and s3:AbortMultipartUpload there for the next time")
    if others:
        found = f"nothing, but {words.count(len(others), 'object')} beneath {box.above}, not of this examination"
        return warning(found, "see whether one was cut off, and remove them")
    return ok("nothing")


class _Clearing:
    """Clears the place when it is closed."""

    def __init__(self, box: Sandbox) -> None:
        self.close = box.clear


def _trial(box: Sandbox, url: str, within_s: float, name: str, look: Trial, *, is_gate: bool = False) -> Check:
    return Check(name, url, partial(look, box), within_s, is_gate, needs=url)
