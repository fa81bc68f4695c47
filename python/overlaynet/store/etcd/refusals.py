"""What grpcio and etcd say when they refuse, in one clear line that names what to look at.

Their texts are no interface: one that is not known here is passed on as it is, on one line.
"""

from __future__ import annotations

import re

from overlaynet.store.etcd.settings import EtcdSettings

_PATH = re.compile(r"(?:ipv4|ipv6):(?P<address>\S+?:\d+): ")


def in_plain_words(details: str, settings: EtcdSettings, endpoint: str) -> str:
    """What `details`, said about a call to `endpoint`, mean to an operator."""
    for pattern, meaning in _KNOWN:
        if re.search(pattern, details):
            return meaning.format(
                endpoint=endpoint, user=settings.username, prefix=settings.prefix, host=endpoint.rpartition(":")[0]
            )
    if settings.tls is None and "Socket closed" in details and "failed to connect" in details:
        return f"{endpoint} ended the connection: if it speaks TLS, write etcds://"
    text = " ".join(details.split())
    at = _PATH.search(text)
    return f"{at['address']}: {text[at.end() :]}" if at is not None else text.removeprefix("etcdserver: ")


_KNOWN = (
    (r"Connection refused", "{endpoint}: connection refused"),
    (r"lookup|resolving|Domain name not found", "{host}: no such host name"),
    (r"Hostname Verification|not in peer certificate", "{endpoint}: the server's certificate is not for {host}"),
    (r"CERTIFICATE_VERIFY_FAILED: certificate has expired", "{endpoint}: the server's certificate has expired"),
    (r"CERTIFICATE_VERIFY_FAILED", "{endpoint}: the server's certificate is not signed by an authority in --etcd-cafile"),
    (r"WRONG_VERSION_NUMBER|Handshake read failed", "{endpoint}: no TLS handshake: if it speaks plain text, write etcd://"),
    (
        r"TSI_DATA_CORRUPTED|CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA",
        "{endpoint}: the server wants another client certificate: check --etcd-certfile and --etcd-keyfile",
    ),
    (
        r"authentication failed, invalid user ID or password",
        "user {user!r} or the password is wrong: check --etcd-username and --etcd-password",
    ),
    (r"user name is empty", "etcd wants a user: give --etcd-username and --etcd-password"),
    (r"database space exceeded", "etcd is full: compact and defragment it, then run `etcdctl alarm disarm`"),
    (r"authentication is not enabled", "etcd has no users: leave out --etcd-username and --etcd-password"),
    (
        r"permission denied",
        "permission denied: user {user!r} needs a role that reads {prefix}/config and reads and writes what begins with "
        "{prefix}/subnets/ and {prefix}/overlaynet/",
    ),
)
