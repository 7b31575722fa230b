"""The proof's tables alone, in force before anything depends on them: what was just loaded is proven, or makes room."""

from dataclasses import replace
from pathlib import Path

from hostwarden.daemon import members, mounts, proofs
from hostwarden.daemon.generations import Generations, Pool
from hostwarden.daemon.teach import Teacher, learn
from hostwarden.policy.words import Tier
from hostwarden.probes.pins import Kernel


def rehearse(kernel: Kernel, first: Tier, state_dir: Path, teacher: Teacher, deny_is_kill: bool) -> list[proofs.Proof]:
    """What ``first`` and the cgroup tier keep of their promises, on a kernel where nobody is a member of anything.

    Armed meanwhile, whatever the state says: only the proof's child is bound. Raises PolicyProblem.
    """
    members.mark_warden(kernel)
    proofs.prepare(state_dir)
    addresses, _ = learn(kernel, teacher)
    found = tuple(mounts.superblocks(mounts.read_mounts())[: mounts.MAX_ROWS])
    pool = Pool(proof=(proofs.policy(state_dir),), superblocks=found, addresses=addresses)
    Generations(kernel, state_dir).switch(pool)
    kernel.set_control(replace(kernel.control(), armed=True, deny_is_kill=deny_is_kill))
    return proofs.prove(kernel, state_dir, first, deny_is_kill)
