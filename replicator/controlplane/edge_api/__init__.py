"""The Edge API server: each device, by its certificate, its own configuration; nothing is moved or decided here."""
