"""Where the words come from, one module a source; each yields complete snapshots, never fragments."""
