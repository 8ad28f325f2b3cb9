"""What an endpoint does with the requests that replicator makes, tried out. Leaves nothing behind."""
