"""Keeps the /export directories of edge workloads and an S3 bucket in step, both ways, by events.

THE MAP, in the order data visits the rooms:

    cli          words on a command line; `commands` has a function for each, and no logic
    supervisor   the running process: signals, configuration changes, drain; `once` is the same for one pass
    report       what runs -> what people see; `explain` is the same for one path
    engine       journal, queue, workers, limits and stores, and the lanes that run on them
    config       words on disk or wire -> Settings and targets
    detect       where hints come from: events, debounce, sweep
    reconcile    decisions: pure functions over values
    transfer     effects, on threads: queue, workers, push, pull, settle, retry, limits
    stores       the only doors to the outside: files, objects, journal
    observe      metrics, status, HTTP, logs
    model, errors, checksum    the values that travel

Invariants:
- A hint carries no verdict; it may be lost, doubled or stale.
- Only `transfer` writes rows: `settle`, `egress` and `ingress` where the next step needs the row, and `generation`
  those of its sets; only `push`, `resumable` and `pull` move bytes.
- The durable queue is the difference between disk and journal; everything in memory may be lost at any time.
- Nothing is deleted on either side, but a file whose target says so and whose content the store has confirmed, and
  sets of links that are out of force; absence in one listing proves nothing.
- `stores` and `transfer` block, and are safe from any thread; asyncio is in `detect`, `config.sources`, `supervisor`
  and `observe.http`.
- Every operation on an export path goes through `stores.files`, relative to a directory descriptor, through no link.
"""

__version__ = "0.1.0"
