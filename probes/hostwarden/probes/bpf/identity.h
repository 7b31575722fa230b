/* SPDX-License-Identifier: GPL-2.0-only
 * Who is a member of which agent, and who owes a death. Enforces: nobody leaves an agent.
 * Maps: members, processes, agents, gate, doomed_files. */

ALWAYS_INLINE struct hw_control *switchboard(void) { u32 zero = 0; return control.lookup(&zero); }

/* A thread that was there before its process was adopted has no entry of its own: its leader's counts. */
ALWAYS_INLINE struct hw_member *membership(void)
{
  struct task_struct *task = bpf_get_current_task_btf();
  struct hw_member *found = members.task_storage_get(task, 0, 0);
  if (found)
    return found;
  if (GET(task, pid) == GET(task, tgid))
    return 0;
  return members.task_storage_get(GET(task, group_leader), 0, 0);
}

/* By slot. The caller compares `id` with the member's agent: a member of an agent that is gone (its slot was freed or
 * used again) is nobody's. The daemon frees a slot only when `processes` holds none of it. (One function that did both
 * would return a pointer that clang merges with 0, and the verifier loses it.) */
ALWAYS_INLINE struct hw_agent *agent_of(struct hw_member *member)
{
  u32 slot = AGENT_SLOT(member->agent);
  return agents.lookup(&slot);
}

ALWAYS_INLINE struct hw_counts *counts_of(u32 agent_id)
{
  u32 slot = AGENT_SLOT(agent_id);
  return counts.lookup(&slot);
}

ALWAYS_INLINE void raise_gate(void) { u32 zero = 0; u64 *up = gate.lookup(&zero); if (up) ATOMIC_ADD(up, 1); }
ALWAYS_INLINE void lower_gate(void) { u32 zero = 0; u64 *up = gate.lookup(&zero); if (up) ATOMIC_ADD(up, -1); }
ALWAYS_INLINE u64 gate_is_up(void) { u32 zero = 0; u64 *up = gate.lookup(&zero); return up ? *up : 0; }

/* The current process dies before it runs another instruction of its own. If the signal can't be sent now, the debt is
 * noted and the gate makes every return to user space look. */
ALWAYS_INLINE void end_process(struct hw_member *member)
{
  if (bpf_send_signal(SIGKILL) == 0)
    return;
  if (!(member->flags & MEMBER_DOOMED)) {
    member->flags |= MEMBER_DOOMED;
    raise_gate();
  }
}

/* Not once its last thread is about to end: nothing happens to it any more, and it has left its agent. */
ALWAYS_INLINE int is_alive(struct task_struct *task) { return GET(GET(task, signal), live.counter) != 0; }

/* The verdict `freeze`: from now on nothing of the agent is let through, and who tries stops; the daemon stops the others
 * and keeps them so until they are released. */
ALWAYS_INLINE void stop_agent(struct hw_agent *agent)
{
  agent->state |= AGENT_FROZEN;
  bpf_send_signal(SIGSTOP);
}

/* What a ruling comes to on a tier that can't refuse: the process ends; `freeze` stops the agent's others as well. */
ALWAYS_INLINE void punish(struct hw_agent *agent, struct hw_member *member, struct hw_ruling *ruling)
{
  if (VERDICT_OF(ruling->enforced) == VERDICT_FREEZE)
    agent->state |= AGENT_FROZEN;
  end_process(member);
}

ALWAYS_INLINE void settle_debts(struct hw_member *member)
{
  struct hw_agent *agent = agent_of(member);
  struct task_struct *task = bpf_get_current_task_btf();
  u64 files = (u64)GET(task, files);
  u32 tgid = bpf_get_current_pid_tgid() >> 32;
  struct hw_member *process = processes.lookup(&tgid);
  if (!process) {
    /* The fork hook could not put it there (map full): try again, or cgroup programs would not know it. */
    struct hw_member copy = *member;
    processes.update(&tgid, &copy);
  }
  if ((agent && agent->id == member->agent && agent->state & AGENT_KILLED) || member->flags & MEMBER_DOOMED || (process && process->flags & MEMBER_DOOMED)
      || doomed_files.lookup(&files))
    bpf_send_signal(SIGKILL);
}
