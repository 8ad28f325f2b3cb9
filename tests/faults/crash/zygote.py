"""A process that has imported everything and forks one `replicator` a request: a run costs its work, not its start.

Reads requests and writes answers as lines of JSON. Not a test: the fixture `zygote` starts it.
"""

import dataclasses
import gc
import json
import os
import resource
import sys
import traceback

import rich.console  # noqa: F401 - this, and all that is not used below, is loaded so that no child has to

from replicator import cli, once, supervisor  # noqa: F401
from replicator.observe import render  # noqa: F401
from replicator.stores.s3 import base, fast  # noqa: F401
from tests.faults.crash.tracer import Call, Plan, end_with_parent, let_be_traced, trace

CANNOT = 77
"""How a child says that the machine does not let it be traced."""


def main() -> None:
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
        if request["plan"] is None:
            code, calls = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), list[Call]()
        else:
            code, calls = trace(child, request["home"], Plan(**request["plan"]))
        answer = {"code": code, "calls": [dataclasses.astuple(call) for call in calls]}
        print(json.dumps(answer), flush=True)


def _become(request: dict) -> None:
    """Be `replicator` with the words of the request, and end."""
    code = 70
    end_with_parent()
    try:
        os.environ.clear()
        os.environ |= request["environment"]
        out = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        sys.argv = ["replicator", *request["arguments"]]
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if request["plan"] is not None:
            code = CANNOT
            let_be_traced()
        code = 70
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - it is a child, and its parent reads the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
