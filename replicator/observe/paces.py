"""How fast files move and targets empty, by one status after the other. Pure: times are those of the statuses."""

from replicator.observe.slope import Slope
from replicator.observe.status import MovingFile, Snapshot, TargetView


class Paces:
    """What is learnt from one status to the next. What is not in the newest one is forgotten."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], Slope] = {}
        self._targets: dict[str, Slope] = {}

    def take(self, snapshot: Snapshot) -> None:
        """Read a status; the process that tells it may be another than before."""
        files, targets = self._files, self._targets
        self._files, self._targets = {}, {}
        for view in snapshot.targets:
            slope = self._targets[view.id] = targets.get(view.id) or Slope()
            slope.add(left_bytes(view), at_s=snapshot.now_ts)
            for file in view.in_flight:
                name = (view.id, file.relpath)
                slope = self._files[name] = files.get(name) or Slope()
                slope.add(file.moved_bytes, at_s=snapshot.now_ts)

    def of_file(self, view: TargetView, file: MovingFile) -> float:
        """Bytes a second; 0 while that is not known, or while nothing moves."""
        return _positive(self._files.get((view.id, file.relpath)))

    def of_target(self, view: TargetView) -> float:
        """Bytes a second by which what is pending gets less; 0 also while more comes than goes."""
        return _positive(self._targets.get(view.id), sign=-1)


def left_bytes(view: TargetView) -> int:
    """What a target has yet to move."""
    return max(0, view.pending_bytes - sum(file.moved_bytes for file in view.in_flight))


def _positive(slope: Slope | None, *, sign: int = 1) -> float:
    return max(0.0, sign * ((slope.per_s if slope else None) or 0.0))
