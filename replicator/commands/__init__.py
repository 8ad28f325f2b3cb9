"""One function a command: it calls one thing, shows what came of it, and says how it ended. No logic, and no `main`."""
