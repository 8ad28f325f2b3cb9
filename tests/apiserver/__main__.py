"""The API server as a process of its own: `python -m tests.apiserver --port N`. Ends at SIGTERM or Ctrl-C."""

import argparse
import signal
from pathlib import Path

from tests.apiserver.server import ApiServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.apiserver", description="A Kubernetes API server for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--kubeconfig", type=Path, help="write a kubeconfig that leads here")
    parser.add_argument("--history", type=int, default=20_000, help="events a kind that a watch can go back")
    arguments = parser.parse_args()
    with ApiServer(port=arguments.port, history=arguments.history) as server:
        if arguments.kubeconfig:
            server.kubeconfig(arguments.kubeconfig)
        print("ready", server.url, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
