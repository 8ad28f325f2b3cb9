"""Devices get their storage and their configuration here. Sees config, model, errors and observe; moves no file."""
