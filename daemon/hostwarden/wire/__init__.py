"""What the programs of hostwarden say to each other: protobuf messages, and both ends of the unix sockets.

Who may call what is the socket's role (``roles``); who called is read from the kernel (``sockets``, ``relay``). The
daemon serves with ``server``, the commands call with ``client``, ``uplink`` streams a host's records to a collector.
"""

import os

# gRPC's C core writes its own lines to stderr for what any peer can cause (a bad preface, a reset). Our log is for
# people: what matters reaches them as a status, once. Set before the first import of grpc, or it has no effect; whoever
# debugs the wire sets the variable himself.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# No forked child of ours goes on using gRPC: they exec. The fork handlers would only stop threads in the parent.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
