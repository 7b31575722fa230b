/* SPDX-License-Identifier: GPL-2.0-only
 * Enforces exec once the new program is in place and before its first instruction: its file, the script that it
 * interprets, and argv as it stands in the program's own memory, where the caller can no longer change it.
 * Hook: sched_process_exec. */

#define MAX_WORKS 4096
#ifndef HAS_F_TASK_WORK
#define f_task_work f_rcuhead /* its name before 6.11 */
#endif

/* One entry of the task's work list: `mount` is what was found, `top` the next. */
int work_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_walk *walk = &scratch->walk;
  u64 work = walk->top, next = 0;
  u32 flags = 0;
  if (!work)
    return 1;
  struct file *file = (struct file *)(work - __builtin_offsetof(struct file, f_task_work));
  READ(flags, file, f_flags);
  if (flags & FMODE_EXEC) {
    /* Other work waits there, too (a timer tick leaves some): what isn't a file doesn't agree with itself. */
    struct dentry *dentry;
    u64 inode = 0, named = 0;
    READ(inode, file, f_inode);
    READ(dentry, file, f_path.dentry);
    READ(named, dentry, d_inode);
    if (inode && inode == named)
      walk->mount = (u64)file;
  }
  READ(next, (struct callback_head *)work, next);
  walk->top = next;
  return 0;
}

/* The script's file was closed by the kernel moments ago, and waits on the task's work list to be freed when the task
 * returns to user space: the oldest entry there that was opened for execution (FMODE_EXEC in f_flags). Nested scripts:
 * the outermost, which is the one that was executed. `is_script` and no file: it could not be found (behind more files
 * that close on exec than are looked through), and the caller fails closed. */
ALWAYS_INLINE struct file *script_of(struct hw_scratch *scratch, struct task_struct *task, struct linux_binprm *bprm, u32 *is_script)
{
  char *filename = (char *)GET(bprm, filename), *interpreter = (char *)GET(bprm, interp);
  struct file *executable = GET(bprm, executable);
  *is_script = filename != interpreter || executable;
  if (executable)
    return executable; /* binfmt_misc with a descriptor */
  if (filename == interpreter)
    return 0;
  scratch->walk.mount = 0;
  scratch->walk.top = (u64)GET(task, task_works);
  struct hw_loop loop = {.scratch = scratch};
  LOOP(MAX_WORKS, work_turn, &loop);
  return scratch->walk.top ? 0 : (struct file *)scratch->walk.mount;
}

ALWAYS_INLINE void forget_shared_table(struct hw_member *member, u32 tgid)
{
  if (!member->shared_files)
    return;
  struct hw_sharer sharer = {.files = member->shared_files, .tgid = tgid};
  sharers.delete(&sharer); /* exec has made the table its own */
  member->shared_files = 0;
}

/* argv as it stands in the new program's memory: bytes read, 0 where it can't be read. */
ALWAYS_INLINE u32 read_argv(struct task_struct *task, struct hw_scratch *scratch, struct hw_event *event)
{
  struct mm_struct *mm = GET(task, mm);
  u64 from = GET(mm, arg_start), length = GET(mm, arg_end) - from;
  event->argv_total = length;
  u32 copied = length > AREA ? AREA : length;
  OPAQUE(copied);
  if (copied > AREA)
    copied = AREA;
  if (length == 0 || length > AREA)
    event->flags |= EVENT_FLAG_ARGV_UNREAD;
  if (bpf_probe_read_user(&scratch->text[ARGV_AT], copied, (void *)from)) {
    event->flags |= EVENT_FLAG_ARGV_UNREAD;
    return 0;
  }
  return copied;
}

/* Who is executing: its membership, moved along where exec has made a thread the process. 0: not a member. */
ALWAYS_INLINE struct hw_member *member_at_exec(struct task_struct *task)
{
  struct hw_member *member = membership();
  u32 tgid = GET(task, tgid);
  if (!member) {
    struct hw_member *process = processes.lookup(&tgid);
    if (!process)
      return 0;
    struct hw_member copy = *process;
    member = members.task_storage_get(task, &copy, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!member)
      bpf_send_signal(SIGKILL); /* fails closed: what can't be marked must not run */
  }
  return member;
}

/* The file of a program: nothing of its path is walked where it has no name. (A deleted file had one: what denies it goes
 * on denying, decide.h.) */
ALWAYS_INLINE void locate_file(struct hw_scratch *scratch, struct file *file, u32 which)
{
  struct dentry *dentry;
  struct vfsmount *mount;
  LOAD(dentry, file, f_path.dentry);
  LOAD(mount, file, f_path.mnt);
  locate(scratch, dentry, mount, which);
}

/* First program of two on this hook: who, which file, which script, which arguments. */
ALWAYS_INLINE int read_exec(struct task_struct *task, struct linux_binprm *bprm)
{
  struct hw_member *member = member_at_exec(task);
  if (!member || member->flags & MEMBER_WARDEN)
    return 0;
  forget_shared_table(member, GET(task, tgid));
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  if (!control || !agent || agent->id != member->agent)
    return 0;
  u32 slot = 0;
  struct hw_scratch *scratch = take_scratch(&slot);
  if (!scratch)
    return 0; /* the second program finds nothing and ends the process */
  member->scratch = slot + 1;
  begin_event(scratch, member, agent, control, TIER_EXEC);
  struct hw_event *event = &scratch->header;
  event->action = ACTION_EXEC;
  locate_file(scratch, GET(bprm, file), 0);
  u32 is_script = 0;
  struct file *script = script_of(scratch, task, bprm, &is_script);
  scratch->actions[0] = 1 << ACTION_EXEC;
  if (script) {
    locate_file(scratch, TYPED(file, script), 1);
  } else if (is_script) {
    locate_nothing(&scratch->at[1]); /* there is one, nobody knows where */
    scratch->at[1].place = PLACED_NOWHERE;
  }
  if (is_script)
    scratch->actions[1] = 1 << ACTION_EXEC;
  u32 argv = read_argv(task, scratch, event);
  scratch->argv = argv;
  scratch->argv_walk = argv ? argv - 1 : 0; /* not the last NUL */
  scratch->argv_use = event->flags & EVENT_FLAG_ARGV_UNREAD ? ARGV_UNREAD : ARGV_READ;
  struct hw_profile *profile = profile_at(table_index(event->generation, agent->profile));
  if (profile && profile->record[ACTION_EXEC] != RECORD_ALL) {
    /* Perhaps no record, but whatever the process does next is done by this program. */
    event->kind = EVENT_EXEC;
    struct hw_counts *sums = counts_of(event->agent);
    if (emit_text(scratch, event, scratch->at[0].offset, lay_out(scratch, event, control, argv)) && sums)
      ATOMIC_ADD(&sums->lost_lifecycle, 1);
    event->kind = EVENT_ACTION;
  }
  return 0;
}

/* Second program: judges what the first has read. */
ALWAYS_INLINE void judge_exec_read(struct task_struct *task, struct hw_member *member, struct hw_scratch *scratch)
{
  struct hw_event *event = &scratch->header;
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  if (!control || !agent) {
    end_process(member); /* no table: fails closed */
    count_blind(member->agent, ACTION_EXEC);
    return;
  }
  recall_hash(task, scratch);
  judge(scratch);
  describe_ruling(event, &scratch->worst);
  describe_location(event, &scratch->at[0], control);
  int killed = agent->id == member->agent && agent->state & AGENT_KILLED;
  if (is_deadly(control, &scratch->worst) || killed || member->flags & MEMBER_DOOMED) {
    punish(agent, member, &scratch->worst);
    event->tier = TIER_SIGNAL;
    event->outcome = OUTCOME_KILLED_BEFORE_EFFECT;
  }
  emit_action(scratch, event, scratch->at[0].offset, lay_out(scratch, event, control, scratch->argv));
}

ALWAYS_INLINE int judge_exec(struct task_struct *task)
{
  struct hw_member *member = membership();
  if (!member || member->flags & MEMBER_WARDEN)
    return 0;
  struct hw_agent *agent = agent_of(member);
  u32 slot = member->scratch - 1;
  struct hw_scratch *scratch = member->scratch ? pool.lookup(&slot) : 0;
  member->scratch = 0;
  if (scratch) {
    judge_exec_read(task, member, scratch);
    give_scratch(slot);
  } else if (agent && agent->id == member->agent) {
    end_process(member); /* no memory: fails closed */
    count_blind(member->agent, ACTION_EXEC);
  }
  return 0;
}
