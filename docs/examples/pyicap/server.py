"""A pyicap server that scans with icapscan: ``python server.py [icapscan.toml]``."""

import os
import sys
from socketserver import ThreadingMixIn

from pyicap import ICAPServer

from icapscan.adapters.pyicap_handler import make_handler
from icapscan.adapters.pyicap_scanner import ScannerThread
from icapscan.config import load


class Server(ThreadingMixIn, ICAPServer):
    daemon_threads = True
    request_queue_size = 128


settings = load(sys.argv[1] if len(sys.argv) > 1 else None, (), os.environ)
host, _, port = settings.server.listen[0].rpartition(":")
with ScannerThread(settings) as scanner, Server((host, int(port)), make_handler(scanner)) as server:
    server.serve_forever()
