"""What both sides held: SQLite rows, and what a restart goes on with. The door is `journal.Journal`."""
