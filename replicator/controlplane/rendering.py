"""What `replicator pod` prints: the words of the command line and a manifest -> a Pod in YAML."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from replicator.config.documents import read_text
from replicator.config.manifests import EdgeWorkload, parse
from replicator.controlplane.pod import Place, chosen, render, user_of
from replicator.controlplane.sidecar import USER, Bucket, Form, Kept, Sidecar
from replicator.errors import ConfigError

_LEAST_GRACE_S = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """The options, as they were given."""

    workload: str
    """Empty: the only one."""
    form: Form
    claim: str
    external: str
    image: str
    place: Place
    device: str
    user: int | None
    grace_s: int


def pod_yaml(file: Path, wish: Wish) -> str:
    """The Pod of the workload in `file`. Raises ConfigError."""
    workload = chosen(parse(read_text(file), where=str(file)), name=wish.workload, where=str(file))
    sidecar = None if wish.form is Form.NONE else _sidecar(wish, workload)
    pod = render(workload, place=wish.place, sidecar=sidecar, device=wish.device)
    return yaml.safe_dump(pod, sort_keys=False, default_flow_style=False)


def _sidecar(wish: Wish, workload: EdgeWorkload) -> Sidecar:
    if wish.grace_s < _LEAST_GRACE_S:
        raise ConfigError(where="--grace-s", problem="leaves no time to drain", fix=f"Give {_LEAST_GRACE_S} or more")
    kept = wish.place.kept
    return Sidecar(
        form=wish.form,
        image=wish.image,
        bucket=_bucket(wish),
        grace_s=wish.grace_s,
        user=user_of(workload, kept=kept, default=USER) if wish.user is None else wish.user,
        has_own_volume=kept is Kept.EMPTY_DIR,
    )


def _bucket(wish: Wish) -> Bucket:
    if bool(wish.claim) == bool(wish.external):
        problem = "has a claim and an external bucket" if wish.claim else "is not told where its bucket stands"
        fix = "Give --claim NAME for a bucket claim, or --external CONFIGMAP/SECRET"
        raise ConfigError(where="--sidecar", problem=problem, fix=fix)
    if wish.claim:
        return Bucket(wish.claim, wish.claim, is_claim=True)
    config_map, slash, secret = wish.external.partition("/")
    if not (config_map and slash and secret) or "/" in secret:
        raise ConfigError(where="--external", problem="is not CONFIGMAP/SECRET", fix="Name both, with a / between them")
    return Bucket(config_map, secret, is_claim=False)
