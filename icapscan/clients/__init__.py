"""asyncio shells that call others: the ICAP client."""
