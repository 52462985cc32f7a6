"""Bytes to events and events to bytes, for both ends; no socket, clock, thread or logger in here."""
