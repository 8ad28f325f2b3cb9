"""What people and Prometheus see: metrics, status, HTTP, logs. Imports no other room, changes nothing."""
