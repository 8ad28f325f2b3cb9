"""Effects on one key at a time: queue, workers, push, pull, retry, limits.

Only `workers` writes rows; only `push` and `pull` move bytes; nothing here decides what a difference means.
"""
