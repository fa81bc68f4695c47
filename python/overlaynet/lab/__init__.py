"""Several hosts on one machine, in network namespaces."""
