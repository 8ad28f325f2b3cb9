"""`replicator doctor`: looks at this device and at the endpoint, and says what stands in the way. Mends nothing."""
