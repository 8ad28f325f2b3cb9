"""The object store: S3 through s3fs, and the frequent requests through obstore. The door is `engine.open_store`."""
