"""Several hosts on one machine, in network namespaces.

The lab makes what a data centre and a container runtime make: an underlay, bridges and pods. It never makes an overlay device,
a route between hosts, a neighbour, a forwarding entry or a host's sysctl: those come from the daemons that it starts, so what
works in the lab works because of them. Everything lives in namespaces of the lab's own; the machine's own namespace is never
touched.
"""
