"""Which library speaks to the bucket. None is imported before it is chosen: s3fs alone takes 40 MB."""

import importlib.util
from typing import Literal

from replicator.errors import ConfigError
from replicator.model import Storage
from replicator.stores.objects import ObjectStore
from replicator.stores.s3.network import Limits, is_proxied
from replicator.stores.s3.table import OnRequest, ignore

Engine = Literal["auto", "s3fs", "obstore"]


def open_store(engine: Engine, storage: Storage, limits: Limits, *, on_request: OnRequest = ignore) -> ObjectStore:
    """A store on `storage`; it connects at its first request. auto is obstore where it is installed, else s3fs.

    Raises ConfigError when obstore was asked for and is not installed.
    """
    has_obstore = engine != "s3fs" and _is_obstore_there()
    if engine == "obstore" and not has_obstore:
        fix = "Install it (pip install replicator[fast]), or choose auto or s3fs"
        raise ConfigError(where="REPLICATOR_S3_ENGINE", problem="obstore is not installed", fix=fix)
    if has_obstore:
        from replicator.stores.s3.fast import FastStore  # noqa: PLC0415  # only where it is chosen

        return FastStore(storage, limits, on_request=on_request)
    from replicator.stores.s3.base import S3fsStore  # noqa: PLC0415  # the same

    return S3fsStore(storage, limits, on_request=on_request)


def why_not_obstore(engine: Engine, storage: Storage) -> str:
    """Why s3fs does everything, as far as it can be told without a request; '' where nothing speaks for that."""
    if engine == "s3fs":
        return "REPLICATOR_S3_ENGINE says so"
    if not _is_obstore_there():
        return "obstore is not installed"
    return "a proxy of the environment stands before the endpoint" if is_proxied(storage.endpoint) else ""


def _is_obstore_there() -> bool:
    return importlib.util.find_spec("obstore") is not None
