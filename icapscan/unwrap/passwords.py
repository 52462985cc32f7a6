"""Passwords that everybody knows: malware is sent around with them, so that no scanner looks inside."""

STANDARD = ("infected", "virus", "VelvetSweatshop", "malware", "novirus")
"""The first two by custom of those who exchange samples; the third is Office's own for files without a password."""
