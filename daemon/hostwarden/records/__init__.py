"""The log: what an auditor needs to read it and to prove it. No root, no bcc, no gRPC.

Read in this order:

``segments``  the format of the files, line by line (start here)
``merkle``    the RFC 6962 tree whose root every checkpoint signs
``note``      C2SP signed notes and checkpoints
``key``       the host's signing key
``writer``    appends, syncs, signs, rotates; ``recover`` is what it does at start
``reader``    streams lines to people and to the collector
``verify``    checks every byte of a log; ``diagnose`` is how it names the record that was changed
``model``     what the fields of a record mean
"""
