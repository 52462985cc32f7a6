"""Benchmarks against real peers: ``python -m benchmarks.run``; what is measured, and how fairly: docs/benchmarks.md."""
