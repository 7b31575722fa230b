"""The `hostwarden` command (design section 13). ``main`` lists the commands; each family is one small file.

A command imports what it needs when it is called: rich, gRPC and pydantic take longer to load than most answers take.
"""
