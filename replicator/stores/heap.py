"""How much of freed memory the C library keeps.

glibc gives each thread a heap of its own, up to eight a core, and lets its border between heap and mmap follow the
largest block that was ever freed. With some thirty threads and bodies of megabytes, freed blocks stay where they were,
and a process that lives for months only grows.
Source: mallopt(3). musl and others have no such heaps, and nothing to set.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_ARENAS = 2
_LARGE_BYTES = 1024 * 1024
"""Above the blocks that files are read and bodies fetched in, so that those stay cheap; below the parts of uploads."""


def keep_small() -> bool:
    """Have freed memory go back to the kernel; whether the C library takes orders. Before any thread is started."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    orders = ((_M_ARENA_MAX, _ARENAS), (_M_MMAP_THRESHOLD, _LARGE_BYTES), (_M_TRIM_THRESHOLD, _LARGE_BYTES))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in orders)
