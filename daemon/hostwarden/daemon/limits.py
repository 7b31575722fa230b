"""What each tier can't do, in sentences: `doctor` says those of the tiers in use, and a scenario whose outcome rests on
one demands that it is said, word for word (tests/scenarios/limits.yaml).
"""

from collections.abc import Mapping

from hostwarden.policy.words import Tier

ALWAYS = (
    "what an agent held before it was adopted, or before the policy, a policy doesn't take away (the record of the"
    " adoption lists it)",
    "a copy of a program is another program to a rule about its path; one with sha256 knows it",
    "what an interpreter is given as an argument is judged as a file that is read, not executed; so is a script that is"
    " the interpreter of another script",
    "an overlay that is mounted in the host's namespace shows the files of its lower folders under names of its own,"
    " and rules about the lower folder don't speak of those",
    "a hard link made before the policy is seen for the files that its deny rules named then; globs that begin with **"
    " aren't searched",
)
NO_CONTENT = "sha256 needs the tier lsm: a policy that has it is refused"
REWRITTEN = (
    "argv can be rewritten by another thread until exec has copied it: who does so is ended in the new program, before"
    " its first instruction (killed_before_effect), and not refused"
)

LIMITS: Mapping[Tier, tuple[str, ...]] = {
    Tier.LSM: (*ALWAYS, REWRITTEN),
    Tier.MODIFY_RETURN: (
        *ALWAYS,
        REWRITTEN,
        NO_CONTENT,
        "under full or lazy preemption the kernel skips such programs now and then: the mode can be changed at run"
        " time, and what was skipped is counted (recursion_misses), recorded and shown, but has happened",
    ),
    Tier.CGROUP: (
        "the address that is asked for is judged, not the first hop of a source route (IP_OPTIONS, IPV6_RTHDR)",
        "IPv4 and IPv6 only: unix sockets and other families are the first tier's",
        "sockets of IP that it can't judge (raw, ping, UDP-Lite, SCTP, MPTCP) are refused where a policy can refuse",
    ),
    Tier.SIGNAL: (
        *ALWAYS,
        NO_CONTENT,
        "`deny` ends the process (deny_without_lsm), it isn't refused with an error; `freeze` ends it, then stops the"
        " agent",
        "an open that truncates or creates has changed the file before its process dies (killed_after_effect)",
        "who shares the descriptor table (threads, CLONE_FILES) may use the descriptor before all of them die; the"
        " outcome says killed_after_effect",
        "what isn't an open has happened when its process dies (killed_after_effect); only mapped code hasn't run",
        "a symlink in a name that is changed, not opened, isn't followed; and another thread may change the name after"
        " the call has read it",
        "what io_uring opens, makes, renames, links and deletes by itself isn't seen",
        "32-bit system calls that change names and modes aren't seen",
        "clone with CLONE_NEW* isn't seen, unshare and setns are",
        "memory that is made executable afterwards (mprotect) isn't seen",
        "times of files that are changed (utime) aren't seen",
        "/proc/PID/mem is a file that is opened, and rules about ptrace don't speak of it",
        "what is typed into terminals (TIOCSTI) isn't seen",
        "unix datagrams that are sent with an address aren't seen",
        "packet sockets, vsock and other families than IP are opened and used, and there is no record",
        "what a descriptor leads to that somebody else opened and handed over (SCM_RIGHTS, fanotify) isn't judged",
        "a device node under another name is judged by that name, not by its number",
        "privileges, signals to the warden, bpf(2) and modules aren't kept from an agent that is root, nor block"
        " devices: only the warden's files are, by their names",
    ),
}
