"""What to believe of lists and events that may repeat, contradict or forget. Pure: no clock, no request.

Within one kind versions only grow, so the older of two answers about an object is known. A removed object comes back
only in a newer version. A list that is suddenly empty, or as old as from a backup, is believed when it stays so.
"""

from collections.abc import Callable

from replicator.cluster.client import Event, Listing
from replicator.cluster.kinds import Key, Object, is_older, key_of, uid_of, version_of

BELIEVED_AFTER = 3
"""Lists in a row that say the same unbelievable thing."""

_REMEMBERED = 1024
"""Removed objects whose late events are recognised."""

Change = Callable[[Key, Object | None, Object | None], None]
"""Told the key, the object as it was (None: new) and as it is (None: gone)."""


class Belief:
    """All objects of a selection, as far as is known; every change of `objects` is told to `tell`."""

    def __init__(self, tell: Change) -> None:
        self.objects: dict[Key, Object] = {}
        self.version = ""
        """From where a watch goes on."""
        self.doubt = ""
        """Why the last list was not believed: "empty" or "older"; '' when it was."""
        self._tell = tell
        self._doubts = 0
        self._removed: dict[str, str] = {}
        self.ended = self._removed.keys()
        """Uids of objects whose removal was told by a watch; that a list lacks one says less."""

    def take_listing(self, listing: Listing) -> None:
        """Be in line with it; while it is in doubt, nothing is removed and nothing newer is replaced for it."""
        is_past = is_older(listing.version, self.version)
        is_empty = bool(self.objects) and not listing.items
        self._doubts = self._doubts + 1 if is_past or is_empty else 0
        if 0 < self._doubts < BELIEVED_AFTER:
            self.doubt = "older" if is_past else "empty"
        else:
            self.doubt, self._doubts = "", 0
            listed = {key_of(item) for item in listing.items}
            for key in [key for key in self.objects if key not in listed]:
                self._remove(key)
            self.version = listing.version
        is_final = is_past and not self.doubt
        if is_final:
            self._removed.clear()
        for item in listing.items:
            self._take(item, is_final=is_final)

    def take_event(self, event: Event) -> None:
        """Of ADDED, MODIFIED and DELETED what is new; of every event, a BOOKMARK too, the version."""
        key, uid, version = key_of(event.object), uid_of(event.object), version_of(event.object)
        if event.type == "DELETED":
            self._removed[uid] = version
            if len(self._removed) > _REMEMBERED:
                del self._removed[next(iter(self._removed))]
            if key in self.objects and uid_of(self.objects[key]) == uid:
                self._remove(key)
        elif event.type in {"ADDED", "MODIFIED"}:
            self._take(event.object)
        if version and not is_older(version, self.version):
            self.version = version

    def _take(self, obj: Object, *, is_final: bool = False) -> None:
        """Have `obj` unless what is known is as new; another uid is another object. `is_final`: also if it is older."""
        key, uid, version = key_of(obj), uid_of(obj), version_of(obj)
        old = self.objects.get(key)
        for known in (version_of(old) if old else "", self._removed.get(uid, "")):
            if known and (known == version or (is_older(version, known) and not is_final)):
                return
        if old and uid_of(old) != uid:
            self._remove(key)
            old = None
        obj["metadata"].pop("managedFields", None)  # half of an object's size, and nobody reads it here
        self.objects[key] = obj
        self._tell(key, old, obj)

    def _remove(self, key: Key) -> None:
        self._tell(key, self.objects.pop(key), None)
