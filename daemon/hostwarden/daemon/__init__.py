"""hostwardend: everything that runs on a host. Read ``recorder`` for the way from the kernel's rings to the log."""
