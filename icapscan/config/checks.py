"""Values that are each fine but contradict one another, the machine, or what this release can do."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from urllib.parse import unquote

from icapscan.config.lines import Path
from icapscan.config.notify import check_notify
from icapscan.config.policy import check_policy
from icapscan.config.sources import Sources
from icapscan.errors import ConfigError
from icapscan.policy.page import BlockPage
from icapscan.quarantine.check import Mistake
from icapscan.quarantine.check import check as check_quarantine
from icapscan.sanitize.notice import Notices
from icapscan.servers.settings import ServiceSettings, Settings

_SERVICE_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
"""An RFC 3986 path without the leading slash; an empty one is the root."""
_PORT_MAX = 65535
_UNIX_PATH_MAX = 107
"""unix(7): sun_path has 108 bytes with the final NUL."""

Fail = Callable[[str, str], ConfigError]


def check(settings: Settings, sources: Sources) -> None:
    """Raises `ConfigError` for the first contradiction; the sentence names the key and where it was given."""

    def fail(key: str, sentence: str) -> ConfigError:
        path: Path = tuple(key.split(".")) if not key.startswith("services.") else tuple(key.split(".", 2))
        return ConfigError(f"{key} ({sources.origin(path)}): {sentence}.")

    check_policy(settings, sources)
    for part in (_ports, _tls, _services, _engines, _limits, _files, _quarantine):
        part(settings, fail)
    check_notify(settings, sources)


def _ports(settings: Settings, fail: Fail) -> None:
    server = settings.server
    if not (server.listen or server.tls_listen):
        raise fail("server.listen", "expected at least one address here or in server.tls_listen")
    taken: dict[str, str] = {}
    addresses = [("server.listen", one) for one in server.listen]
    addresses += [("server.tls_listen", one) for one in server.tls_listen]
    if settings.admin.enabled:
        addresses.append(("admin.listen", settings.admin.listen))
    for key, address in addresses:
        port = int(address.rpartition(":")[2])
        if port > _PORT_MAX:
            raise fail(key, f"expected a port up to {_PORT_MAX}, got {port}")
        if port and address in taken:
            raise fail(key, f"{address} is already used by {taken[address]}; expected another address or port")
        taken[address] = key


def _tls(settings: Settings, fail: Fail) -> None:
    server = settings.server
    if server.tls_listen and not server.tls_certificate:
        raise fail("server.tls_listen", "expected server.tls_certificate to be set too")
    if server.tls_key and not server.tls_certificate:
        raise fail("server.tls_key", "expected server.tls_certificate to be set too")
    if server.tls_client_ca and not server.tls_listen:
        raise fail("server.tls_client_ca", "expected server.tls_listen to be set too: without it no client is checked")
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        if path := getattr(server, name):
            _readable(f"server.{name}", path, fail)
    if server.tls_listen and server.tls_certificate:
        _matching_pair(server.tls_certificate, server.tls_key, server.tls_client_ca, fail)


def _matching_pair(certificate: str, key: str | None, client_ca: str | None, fail: Fail) -> None:
    import ssl  # only where TLS is asked for

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        where = f"in {certificate}" if key is None else f"in {certificate} and {key}"
        raise fail(
            "server.tls_certificate", f"expected a PEM certificate and its unencrypted key {where} ({error})"
        ) from error
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            raise fail("server.tls_client_ca", f"expected PEM certificates in {client_ca} ({error})") from error


def _services(settings: Settings, fail: Fail) -> None:
    taken: dict[str, str] = {}
    for name, service in settings.services.items():
        if not _SERVICE_PATH.fullmatch(name):
            raise fail(f"services.{name}", "expected a name that can stand in a URL path, e.g. avscan")
        _claim(name, f"services.{name}", f"service {name}", taken, fail)
        if not service.methods:
            raise fail(f"services.{name}.methods", 'expected at least one of "REQMOD" and "RESPMOD"')
    for name, service in settings.services.items():
        _aliases(name, service, taken, fail)


def _aliases(name: str, service: ServiceSettings, taken: dict[str, str], fail: Fail) -> None:
    key = f"services.{name}.aliases"
    for alias in service.aliases:
        if alias and not _SERVICE_PATH.fullmatch(alias):
            raise fail(key, f"expected URL paths without the leading slash, got {alias!r}")
        _claim(alias, key, f"service {name}", taken, fail)


def _claim(path: str, key: str, owner: str, taken: dict[str, str], fail: Fail) -> None:
    """Paths are compared as the server compares them: percent-decoded, with case."""
    plain = unquote(path)
    if plain in taken:
        raise fail(key, f"the path /{path} is already taken by {taken[plain]}; expected each path once")
    taken[plain] = owner


def _engines(settings: Settings, fail: Fail) -> None:
    engines = settings.engines
    scans = any(service.kind == "scan" for service in settings.services.values())
    if scans and not (engines.yara.enabled or engines.clamd.enabled or engines.hash.deny):
        raise fail("engines.yara.enabled", "no engine is enabled, so nothing would be scanned; expected at least one")
    if engines.yara.enabled:
        for path in engines.yara.rules:
            _readable("engines.yara.rules", path, fail, folder=True)
    for name in ("deny", "allow"):
        for path in getattr(engines.hash, name):
            _readable(f"engines.hash.{name}", path, fail)
    for address in engines.clamd.address:
        kind, _, where = address.partition(":")
        host, _, port = where.rpartition(":")
        if kind == "tcp" and not (
            host.strip("[]") and port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX
        ):
            raise fail("engines.clamd.address", f'expected "tcp:host:port", got "{address}"')
        if kind == "unix" and len(os.fsencode(where)) > _UNIX_PATH_MAX:
            raise fail("engines.clamd.address", f"expected a socket path of at most {_UNIX_PATH_MAX} bytes")


def _limits(settings: Settings, fail: Fail) -> None:
    limits = settings.limits
    if limits.part_in_bytes > limits.part_in_memory:
        raise fail("limits.part_in_bytes", "expected at most limits.part_in_memory")
    if not limits.memory and not limits.disk:
        raise fail("limits.memory", "expected memory or limits.disk above 0, else no body can be kept for scanning")
    for name in ("body", "unpacked"):
        if not getattr(limits, name):
            raise fail(f"limits.{name}", "expected more than 0, else nothing can be scanned")


def _files(settings: Settings, fail: Fail) -> None:
    if settings.server.spool:
        _writable_folder("server.spool", settings.server.spool, fail)
    if settings.log.file:
        _writable_folder("log.file", os.path.dirname(settings.log.file) or ".", fail)
        if os.path.isdir(settings.log.file):
            raise fail("log.file", f"expected a file, but {settings.log.file} is a folder")
    if settings.sanitize.notice:
        _readable("sanitize.notice", settings.sanitize.notice, fail)
        try:
            Notices(settings.sanitize.notice)
        except ConfigError as error:
            raise fail("sanitize.notice", f"expected a jinja2 template; {str(error).rstrip('.')}") from error
    if settings.page.template:
        _readable("page.template", settings.page.template, fail)
        try:
            BlockPage(settings.page.template, settings.page.contact)
        except ConfigError as error:
            raise fail("page.template", f"expected a jinja2 template; {str(error).rstrip('.')}") from error


def _quarantine(settings: Settings, fail: Fail) -> None:
    try:
        check_quarantine(settings.quarantine)
    except Mistake as mistake:
        raise fail(mistake.key, mistake.sentence) from mistake


def _readable(key: str, path: str, fail: Fail, *, folder: bool = False) -> None:
    what = "a readable file or folder" if folder else "a readable file"
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise fail(key, f"expected {what}, but {path}: {reason}") from error
    is_folder = stat.S_ISDIR(mode)
    if not (stat.S_ISREG(mode) or (folder and is_folder)):
        raise fail(key, f"expected {what}, but {path} is neither" if folder else f"expected {what}, but {path} is none")
    if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
        raise fail(key, f"expected {what}, but {path}: Permission denied")


def _writable_folder(key: str, path: str, fail: Fail) -> None:
    try:
        is_folder = os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
    except ValueError:
        is_folder = False
    if not is_folder:
        raise fail(key, f"expected a folder that can be written to, but {path!r} is none")
