"""asyncio shells around the codecs: the ICAP server, its workers and their supervisor."""
