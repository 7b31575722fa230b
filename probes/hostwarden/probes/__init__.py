"""Programs for the kernel, and the loader that compiles, attaches and pins them. Knows nothing of policy or daemon.

``bpf/`` holds the C; ``layout`` the sizes and the event's layout; ``programs`` which program goes to which hook;
``loader`` the short-lived process that compiles; ``pins`` what a daemon that starts again adopts; ``rings`` the events.
"""
