"""Rewriting what is bad in a body, and nothing else: mail parts, documents, archives. Pure: bytes in, bytes out."""
