"""The quarantine: where bodies are kept that a rule takes out of the traffic, and how they get out again.

`vault.Quarantine` keeps and reads them, `release` sends mails on, `sweep` mends what a crash left behind. Synchronous,
for threads and the command line; nothing heavy is loaded until something is kept or read.
"""
