"""What agents try, as data (`tests/scenarios`), and the one runner for every tier: `hostwarden policy test --host`.

``runner`` is the way through; ``resident`` and what it imports run inside the agents and are standard library only.
"""
