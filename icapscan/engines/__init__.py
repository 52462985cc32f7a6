"""The scanners side by side: one contract, one file an engine, and the fan-out over them."""
