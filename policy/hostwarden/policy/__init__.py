"""The language of hostwarden: words, model, parser, oracle, compiler to kernel tables.

Pure: no I/O but what the caller hands in, no root, no Linux features. It runs on the laptop where a policy is written.
"""
