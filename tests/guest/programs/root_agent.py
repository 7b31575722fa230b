"""root_agent.py JSON: everything that root could do to the warden, to the kernel and around its own bonds, each once.

Argument: {"warden": pid, "threads": [tid], "victim": pid, "bpffs", "state", "policies", "run", "cgroup", "link" (on the
bpffs), "disk": [major, minor], "disk_path", "marker": a file that a helper of the kernel would make, "names": to try}.
Each attempt is made by a child of its own; a line of JSON says its name, its pid, and what it came to: the name of the
error, or `DONE`.
"""

from tests.guest.programs import root_reach, root_warden
from tests.guest.programs.root_calls import IT, in_child

__all__ = ["root_reach", "root_warden"]  # importing them is what makes the attempts known

for each in IT["names"]:
    in_child(each)
