"""Decisions. Pure functions over values: no I/O, no clock, no asyncio."""
