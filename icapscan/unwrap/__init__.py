"""One chunk stream in, a tree of part events out; no engine, no socket, no asyncio."""
