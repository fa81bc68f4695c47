"""The Python package etcd3, driven by lines of JSON; run with an interpreter of its own, which has none of our code.

Requests: `put` and `delete` of a key, `get` and `watch` of all keys that begin with a text; one answer each, in order. Keys and
values are text.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import etcd3


def main(host: str, port: str) -> None:
    client = etcd3.client(host=host, port=int(port))
    events: Iterator[Any] = iter(())
    answer: object
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "put":
            lease = client.lease(asked["ttl"]) if asked.get("ttl") else None
            client.put(asked["key"], asked["value"], lease=lease)
            answer = lease.id if lease is not None else 0
        elif asked["do"] == "delete":
            answer = client.delete(asked["key"])
        elif asked["do"] == "get":
            found = client.get_prefix(asked["key"])
            answer = sorted([meta.key.decode(), value.decode(), meta.response_header.revision > 0] for value, meta in found)
        elif asked["do"] == "watch":
            events, _ = client.watch_prefix(asked["key"])
            answer = True
        elif asked["do"] == "next":
            event = next(events)
            answer = [type(event).__name__, event.key.decode(), event.value.decode()]
        else:
            raise SystemExit(f"{asked['do']}?")
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
