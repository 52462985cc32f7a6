"""Programs that stand in the way of a mail and ask an ICAP service about it."""
