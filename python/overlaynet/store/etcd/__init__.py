"""The store for many machines: etcd's v3 API, with flannel's keys and values to the byte."""
