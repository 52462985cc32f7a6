"""Benchmarks against real peers: ``python -m benchmarks.run``. What is measured and why it is fair: docs/benchmarks.md."""
