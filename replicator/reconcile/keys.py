"""relpath <-> key, and every rule that keeps one from leading outside the other.

A key is attacker-controlled (anybody with write access to the bucket), a file name is workload-controlled.
Nothing is cleaned or repaired: two different names never become one. What has no exact counterpart is KeyUnsafe.
Sources: S3 object limits (keys of 1,024 bytes of UTF-8, 5 TiB); Linux NAME_MAX 255 and PATH_MAX 4,096 bytes.
"""

from replicator.errors import KeyUnsafe, LeftOut
from replicator.model import OWN_DIR, Prefix

MAX_KEY_BYTES = 1024
MAX_OBJECT_BYTES = 5 * 2**40
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3072
"""Below PATH_MAX, so that the target's own path fits in front."""


def key_of(prefix: Prefix, relpath: str) -> str:
    """The object key of a file. Raises KeyUnsafe for names that are not UTF-8 and keys over 1,024 bytes."""
    key = prefix.text + relpath
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        raise KeyUnsafe("the file name is not UTF-8, so S3 has no key for it; rename the file") from exc
    if size > MAX_KEY_BYTES:
        raise KeyUnsafe(f"the key would have {size} bytes, S3 allows {MAX_KEY_BYTES}; shorten the path")
    return key


def check_size(size: int) -> None:
    """Raises LeftOut for a file that is larger than any object may be: not a byte of it is worth reading."""
    if size > MAX_OBJECT_BYTES:
        problem = f"it has {size} bytes, and no object may have more than 5 TiB"
        raise LeftOut(f"{problem}; split the file or exclude it", rule="too-large")


def is_marker(key: str) -> bool:
    """Whether a key is a directory marker, as consoles create them: it stands for no file."""
    return key.endswith("/")


def relpath_of(prefix: Prefix, key: str, *, subdir: str) -> str:
    """The file of an object under `prefix`, for a target directory `subdir` beneath its export.

    Raises KeyUnsafe when the key has no exact, harmless counterpart beneath that directory.
    """
    relpath = key.removeprefix(prefix.text)
    names = relpath.split("/")
    if not key.startswith(prefix.text) or any(name in ("", ".", "..") for name in names):
        raise KeyUnsafe("the key has an empty, '.' or '..' segment; rename the object")
    if "\0" in relpath:
        raise KeyUnsafe("the key contains a NUL byte; rename the object")
    try:
        sizes = [len(name.encode()) for name in names]
    except UnicodeEncodeError as exc:
        raise KeyUnsafe("the key is not valid Unicode; rename the object") from exc
    if max(sizes) > MAX_NAME_BYTES or sum(sizes) + len(sizes) > MAX_PATH_BYTES:
        raise KeyUnsafe(f"the key is too long for a path, or a segment of it over {MAX_NAME_BYTES} bytes; rename it")
    if not subdir and names[0] == OWN_DIR:
        raise KeyUnsafe(f"'{OWN_DIR}' at the top of an export is reserved; rename the object")
    return relpath
