/* SPDX-License-Identifier: GPL-2.0-only
 * Enforces: a child is a member before its first instruction; a process leaves its agent only by ending.
 * Hooks: sched_process_fork, sched_process_exit. Maps: members, processes, sharers, doomed_files. */

ALWAYS_INLINE void note_sharer(u64 files, u32 tgid, u32 agent)
{
  struct hw_sharer sharer = {.files = files, .tgid = tgid};
  sharers.update(&sharer, &agent); /* full: the sharer still dies at its next system call, by doomed_files */
}

ALWAYS_INLINE int inherit(struct task_struct *parent, struct task_struct *child)
{
  struct hw_member *member = membership();
  if (!member || member->flags & MEMBER_WARDEN)
    return 0;
  u32 tgid = GET(child, tgid), parent_tgid = GET(parent, tgid);
  struct hw_member copy = {.agent = member->agent, .forker = parent_tgid, .forker_start = GET(GET(parent, group_leader), start_boottime)};
  if (tgid == parent_tgid) { /* a thread */
    copy = *member;
    copy.flags = 0;
  }
  u64 files = (u64)GET(child, files);
  if (tgid != parent_tgid) {
    if (files == (u64)GET(parent, files)) {
      copy.shared_files = files;
      member->shared_files = files;
      note_sharer(files, tgid, member->agent);
      note_sharer(files, parent_tgid, member->agent);
    } else if (gate_is_up()) {
      doomed_files.delete(&files); /* a new table at the address of one that is gone */
    }
  }
  struct hw_agent *agent = agent_of(member);
  int killed = agent && agent->id == member->agent && agent->state & AGENT_KILLED;
  struct hw_member *stored = members.task_storage_get(child, &copy, BPF_LOCAL_STORAGE_GET_F_CREATE);
  int listed = tgid == parent_tgid || processes.update(&tgid, &copy) == 0;
  /* Fails closed: a child that can't be marked must not run. With one of both marks it is found through the gate and
   * dies or is mended at its first return to user space; with neither, its parent dies with SIGKILL pending for the
   * whole fork (6.18's kernel lets no fork return to user space before). */
  if (!stored && listed && tgid != parent_tgid) {
    copy.flags = MEMBER_DOOMED;
    processes.update(&tgid, &copy);
    raise_gate();
  } else if (!listed && stored) {
    stored->flags |= MEMBER_DOOMED;
    raise_gate();
  }
  if (killed || !stored || !listed)
    bpf_send_signal(SIGKILL);
  if (tgid != parent_tgid) {
    struct hw_event event = {.kind = EVENT_FORK};
    describe_process(&event, member);
    event.forker = parent_tgid;
    event.forker_start = copy.forker_start;
    event.tgid = tgid;
    event.tid = tgid;
    event.start = GET(child, start_boottime);
    emit_lifecycle(&event);
  }
  return 0;
}

ALWAYS_INLINE int leave(struct task_struct *task)
{
  struct hw_member *member = membership();
  if (!member || member->flags & MEMBER_WARDEN)
    return 0;
  u32 tgid = GET(task, tgid);
  u64 files = (u64)GET(task, files);
  if (member->shared_files || gate_is_up()) {
    struct hw_sharer sharer = {.files = files, .tgid = tgid};
    if (GET(GET(task, files), count.counter) == 1 && doomed_files.delete(&files) == 0)
      lower_gate();
    if (GET(GET(task, signal), live.counter) == 0)
      sharers.delete(&sharer);
  }
  if (GET(GET(task, signal), live.counter) != 0)
    return 0;
  struct hw_member *process = processes.lookup(&tgid);
  if (member->flags & MEMBER_DOOMED)
    lower_gate();
  if (process && process->flags & MEMBER_DOOMED)
    lower_gate();
  processes.delete(&tgid);
  struct hw_event event = {.kind = EVENT_EXIT};
  describe_process(&event, member);
  event.status = GET(task, exit_code) & 0x7f;
  emit_lifecycle(&event);
  return 0;
}
