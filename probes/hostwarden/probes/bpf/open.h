/* SPDX-License-Identifier: GPL-2.0-only
 * Enforces read, write and create at the end of open, openat, openat2, creat, open_by_handle_at, and of pidfd_getfd, which
 * takes an open file from another process (one that dies for having opened it, too): the file that was really opened is
 * judged, and the process dies before it can use the descriptor.
 * Hook: sys_exit. Maps: pool, sharers, doomed_files, and those of match.h. */

ALWAYS_INLINE int is_open(u64 number, int compat)
{
  if (compat)
    return number == 5 || number == 8 || number == 295 || number == 342 || number == 437 || number == 438;
  return number == 2 || number == 85 || number == 257 || number == 304 || number == 437 || number == 438;
}

ALWAYS_INLINE struct file *file_at(struct task_struct *task, u64 descriptor)
{
  struct files_struct *files = GET(task, files);
  if (!files)
    return 0;
  struct fdtable *table = GET(files, fdt);
  struct file **slots = GET(table, fd), *file = 0;
  if (descriptor >= GET(table, max_fds))
    return 0;
  bpf_probe_read_kernel(&file, sizeof(file), slots + descriptor);
  return file ? TYPED(file, file) : 0;
}

/* The flags as the caller passed them: the kernel takes O_TRUNC out of f_flags. For openat2 they are in the caller's
 * memory, which another thread may have changed since: it can only make the outcome sound worse or better, never the
 * verdict, and with other threads the outcome is `after effect` anyway. */
ALWAYS_INLINE u64 open_flags(struct pt_regs *regs)
{
  u64 how = 0, number = SYSCALL_NUMBER(regs) & ~(u64)X32_BIT;
  int compat = GET(bpf_get_current_task_btf(), thread_info.status) & TS_COMPAT;
  if (number == 438)
    return 0; /* pidfd_getfd: the file is as it is */
  if (compat) {
    if (number == 8)
      return O_TRUNC;
    if (number == 437) {
      bpf_probe_read_user(&how, sizeof(how), (void *)(u64)(u32)GET(regs, dx));
      return how;
    }
    return number == 5 ? GET(regs, cx) : GET(regs, dx);
  }
  if (number == 85)
    return O_TRUNC;
  if (number == 437) {
    bpf_probe_read_user(&how, sizeof(how), (void *)GET(regs, dx));
    return how;
  }
  return number == 2 ? GET(regs, si) : GET(regs, dx);
}

/* The others in whose descriptor table the refused file stands: they die at their next return to user space, and the
 * daemon, told by this event, ends those that sleep. */
ALWAYS_INLINE void ruin_sharers(struct task_struct *task, struct hw_event *event)
{
  u64 files = (u64)GET(task, files);
  u32 agent = event->agent;
  if (doomed_files.insert(&files, &agent) == 0) /* once a table: its last user lowers it (task.h) */
    raise_gate();
  event->kind = EVENT_SHARED;
  event->start = files;
  emit_lifecycle(event);
}

/* The file that was opened: where it is, what its policies say, and what becomes of the process. */
ALWAYS_INLINE void judge_file_opened(struct pt_regs *regs, struct hw_control *control, struct hw_agent *agent, struct hw_member *member,
                                     struct hw_scratch *scratch, struct file *file, u32 accesses)
{
  struct task_struct *task = bpf_get_current_task_btf();
  struct hw_event *event = &scratch->header;
  struct dentry *dentry;
  struct vfsmount *mount;
  LOAD(dentry, file, f_path.dentry);
  LOAD(mount, file, f_path.mnt);
  locate(scratch, dentry, mount, 0);
  scratch->actions[0] = accesses;
  judge(scratch);
  describe_ruling(event, &scratch->worst);
  describe_location(event, &scratch->at[0], control);
  if (scratch->worst.is_linked)
    event->flags |= EVENT_FLAG_LINKED;
  int users = GET(GET(task, files), count.counter), threads = GET(GET(task, signal), nr_threads);
  if (is_deadly(control, &scratch->worst)) {
    u64 flags = open_flags(regs);
    int happened = accesses & (1 << ACTION_CREATE) || (accesses & (1 << ACTION_WRITE) && flags & O_TRUNC);
    if (users > 1) {
      happened = 1; /* who shares the table may have used the descriptor already */
      event->flags |= users > threads ? EVENT_FLAG_SHARED : EVENT_FLAG_THREADS;
    }
    punish(agent, member, &scratch->worst);
    event->outcome = happened ? OUTCOME_KILLED_AFTER_EFFECT : OUTCOME_KILLED_BEFORE_EFFECT;
  }
  emit_action(scratch, event, scratch->at[0].offset, scratch->at[0].length);
  /* Whoever has the table, not only whom the numbers betray: threads may have tables of their own. */
  if (event->flags & (EVENT_FLAG_SHARED | EVENT_FLAG_THREADS))
    ruin_sharers(task, event);
}

/* Another task that shares the table has closed the descriptor before the open returned: it may hold a duplicate, and no
 * honest program does that. Denied where a policy of this agent could have denied, and said. */
ALWAYS_INLINE int judge_vanished(struct hw_control *control, struct hw_agent *agent, struct hw_member *member)
{
  u32 slot = 0;
  struct hw_scratch *scratch = take_scratch(&slot);
  if (!scratch) {
    end_process(member);
    count_blind(member->agent, ACTION_READ);
    return 0;
  }
  begin_event(scratch, member, agent, control, TIER_SIGNAL);
  struct hw_event *event = &scratch->header;
  struct hw_profile *profile = profile_at(table_index(event->generation, agent->profile));
  refuse_unknown(profile, &scratch->worst, ACTION_READ);
  refuse_unknown(profile, &scratch->worst, ACTION_WRITE);
  describe_ruling(event, &scratch->worst);
  event->action = ACTION_READ;
  event->accesses = 1 << ACTION_READ;
  event->record = RECORD_ALL;
  event->flags = EVENT_FLAG_UNKNOWN | EVENT_FLAG_SHARED | (control->armed ? 0 : EVENT_FLAG_DISARMED);
  int deadly = is_deadly(control, &scratch->worst);
  if (deadly) {
    end_process(member);
    event->outcome = OUTCOME_KILLED_AFTER_EFFECT;
  }
  emit_action(scratch, event, AREA, 0);
  if (deadly)
    ruin_sharers(bpf_get_current_task_btf(), event);
  give_scratch(slot);
  return 0;
}

ALWAYS_INLINE int judge_open(struct pt_regs *regs, u64 descriptor, struct hw_member *member)
{
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  struct file *file = file_at(bpf_get_current_task_btf(), descriptor);
  if (!control || !agent || agent->id != member->agent)
    return 0; /* no agent: its slot was freed */
  if (!file)
    return judge_vanished(control, agent, member);
  u32 mode = 0, slot = 0;
  LOAD(mode, file, f_mode);
  u32 accesses = (mode & 1) << ACTION_READ | ((mode >> 1) & 1) << ACTION_WRITE | ((mode >> 20) & 1) << ACTION_CREATE;
  if (!accesses)
    return 0; /* O_PATH: nothing can be read or written through it; opening it anew is an open of its own */
  struct hw_scratch *scratch = take_scratch(&slot);
  if (!scratch) {
    end_process(member); /* all memory is in use: fails closed; counted, but there is nowhere to write a record */
    count_blind(member->agent, ACTION_READ);
    return 0;
  }
  begin_event(scratch, member, agent, control, TIER_SIGNAL);
  judge_file_opened(regs, control, agent, member, scratch, file, accesses);
  give_scratch(slot);
  return 0;
}
