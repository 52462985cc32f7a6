"""Telling people and programs what was done: mails by rule and template, bounded in rate, and a signed webhook."""
