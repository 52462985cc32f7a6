"""icapscan: an ICAP (RFC 3507) virus-scanning server."""

__version__ = "0.1.0"
