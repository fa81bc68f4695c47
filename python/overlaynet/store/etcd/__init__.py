"""The store for many machines: etcd's v3 API, with flannel's keys and values to the byte."""

import os

# grpcio's core writes its own lines to standard error about what it also raises. It reads this once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
