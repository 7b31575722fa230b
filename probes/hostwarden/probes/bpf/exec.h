/* SPDX-License-Identifier: GPL-2.0-only
 * Enforces exec once the new program is in place and before its first instruction: its file, the script that it
 * interprets, and argv as it stands in the program's own memory, where the caller can no longer change it.
 * Hook: sched_process_exec. */

#define MAX_WORKS 1200
/* The script's file was closed by the kernel moments ago, and waits on the task's work list to be freed when the task
 * returns to user space: the oldest entry there that was opened for execution (FMODE_EXEC in f_flags). Nested scripts:
 * the outermost, which is the one that was executed. `is_script` and no file: it could not be found (behind more files
 * that close on exec than are looked through), and the caller fails closed. */
ALWAYS_INLINE struct file *script_of(struct hw_scratch *scratch, struct task_struct *task, struct linux_binprm *bprm, u32 *is_script)
{
  volatile struct hw_walk *walk = &scratch->walk; /* in memory, as in match.h: `mount` is what was found, `top` the next */
  char *filename = (char *)GET(bprm, filename), *interpreter = (char *)GET(bprm, interp);
  struct file *executable = GET(bprm, executable);
  *is_script = filename != interpreter || executable;
  if (executable)
    return executable; /* binfmt_misc with a descriptor */
  if (filename == interpreter)
    return 0;
  walk->mount = 0;
  walk->top = (u64)GET(task, task_works);
  for (u32 i = 0; i < MAX_WORKS; i++) {
    OPAQUE(i);
    u64 work = walk->top, next = 0;
    u32 flags = 0;
    if (!work)
      return (struct file *)walk->mount;
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
  }
  return 0;
}

ALWAYS_INLINE void judge_file(struct hw_scratch *scratch, struct hw_control *control, struct hw_profile *profile, struct hw_location *at,
                              u32 first, u32 jobs, u32 argv_job, u32 argv_known, volatile struct hw_ruling *ruling)
{
  u64 by_path = 0, by_argv = 0;
  int nameless = at->place >= PLACED_INTERNAL || at->links == 0;
  for (u32 i = 0; i < MAX_AUTOMATA; i++) {
    OPAQUE(i);
    if (i >= jobs)
      break;
    if (add_job_result(scratch, ruling, first + i, ACTION_EXEC, &by_path))
      refuse_unknown(profile, ruling, ACTION_EXEC);
  }
  if (at->place == PLACED_NOWHERE)
    refuse_unknown(profile, ruling, ACTION_EXEC);
  if (profile->has_argv) {
    if (!argv_known)
      add_decision(ruling, &profile->argv_unread);
    else if (add_job_result(scratch, ruling, argv_job, ACTION_EXEC, &by_argv))
      refuse_unknown(profile, ruling, ACTION_EXEC);
    if (by_path & by_argv)
      add_joint(profile, ruling, by_path & by_argv);
  }
  /* memfd, deleted, unknown: walked from `@private` over no text, so rules for every path have spoken; but nothing
   * covers what has no name: `otherwise` decides as well */
  if (nameless)
    ruling->covered = 0;
  add_otherwise(profile, ruling, ACTION_EXEC);
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

/* Path, what may be shown of argv, the script's path: one stretch of memory. Returns its length. */
ALWAYS_INLINE u32 lay_out(struct hw_scratch *scratch, struct hw_event *event, struct hw_control *control, u32 argv)
{
  u32 shown = control->shown & (AREA / 2 - 1);
  if (argv > shown) {
    argv = shown;
    event->flags |= EVENT_FLAG_ARGV_CUT;
  }
  event->argv_length = argv;
  u32 script = MASKED(scratch->script.length, AREA - 1);
  event->script_length = script;
  event->script_row = scratch->script.row;
  if (script)
    bpf_probe_read_kernel(&scratch->text[ARGV_AT + MASKED(argv, AREA - 1)], script,
                          &scratch->text[SCRIPT_AT + MASKED(scratch->script.offset, AREA - 1)]);
  return scratch->file.length + argv + script;
}

/* Everything that differs from exec to exec lies in memory: each value that the verifier knew in a register would be
 * another walk for it. */
ALWAYS_INLINE void judge_program(struct hw_control *control, struct hw_profile *profile, u32 index, struct hw_scratch *scratch)
{
  struct hw_location *file = &scratch->file, *script = &scratch->script;
  volatile struct hw_scratch *noted = scratch;
  noted->user = user_class(profile);
  u32 user = noted->user, jobs = n_paths(profile), argv_job = 2 * jobs;
  add_path_jobs(scratch, profile, index, 0, file, 0, user);
  /* Without a script its jobs walk nothing: an empty stretch, so that the count of jobs doesn't depend on it. */
  add_path_jobs(scratch, profile, index, jobs, script, SCRIPT_AT, user);
  add_job(scratch, argv_job, index * AUTOMATA_A_PROFILE + MAX_AUTOMATA, ARGV_AT, noted->argv_walk,
          start_of(profile, MAX_AUTOMATA, 0, user));
  u32 all = argv_job + (profile->has_argv & 1);
  volatile struct hw_ruling *worst = &scratch->worst, *ruling = &scratch->ruling;
  if (walk(scratch, all, EXEC_TURNS)) {
    refuse_unknown(profile, worst, ACTION_EXEC);
    file->place = PLACED_NOWHERE;
    return;
  }
  u32 known = !(noted->header.flags & EVENT_FLAG_ARGV_UNREAD);
  judge_file(scratch, control, profile, file, 0, jobs, argv_job, known, worst);
  if (script->superblock) { /* there is one, however long its path */
    judge_file(scratch, control, profile, script, jobs, jobs, argv_job, known, ruling);
    weigh(worst, MODE_ENFORCE, ruling->enforced);
    weigh(worst, MODE_OBSERVE, ruling->observed);
  }
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

/* How much of the path is walked, and from which row: nothing, from `@private`, of what has no name. (A deleted file had
 * one: what denies it goes on denying, judge_file.) */
ALWAYS_INLINE void note_walked(struct hw_location *at)
{
  int nameless = at->place >= PLACED_INTERNAL;
  at->walked = nameless ? 0 : at->length;
  at->walked_row = nameless ? ROW_PRIVATE : at->row;
}

/* First program of two on this hook (one would be more than the verifier follows): who, which file, which script, which
 * arguments, into the task's scratch. */
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
  begin_event(scratch, member, agent, control);
  __builtin_memset(&scratch->ruling, 0, sizeof(scratch->ruling));
  __builtin_memset(&scratch->script, 0, sizeof(scratch->script));
  struct hw_event *event = &scratch->header;
  event->action = ACTION_EXEC;
  event->accesses = 1 << ACTION_EXEC;
  locate(scratch, control, GET(bprm, file), 0, &scratch->file);
  note_walked(&scratch->file);
  u32 is_script = 0;
  struct file *script = script_of(scratch, task, bprm, &is_script);
  if (script) {
    locate(scratch, control, TYPED(file, script), SCRIPT_AT, &scratch->script);
  } else if (is_script) {
    scratch->script.superblock = 1; /* there is one, nobody knows where */
    scratch->script.place = PLACED_NOWHERE;
  }
  note_walked(&scratch->script);
  u32 argv = read_argv(task, scratch, event);
  scratch->argv = argv;
  scratch->argv_walk = argv && !(event->flags & EVENT_FLAG_ARGV_UNREAD) ? argv - 1 : 0; /* not the last NUL */
  struct hw_profile *profile = profile_at(table_index(event->generation, agent->profile));
  if (profile && profile->record[ACTION_EXEC] != RECORD_ALL) {
    /* Perhaps no record, but whatever the process does next is done by this program. */
    event->kind = EVENT_EXEC;
    struct hw_counts *sums = counts_of(event->agent);
    if (emit_text(scratch, event, scratch->file.offset, lay_out(scratch, event, control, argv)) && sums)
      ATOMIC_ADD(&sums->lost_lifecycle, 1);
    event->kind = EVENT_ACTION;
  }
  return 0;
}

/* Second program: judges what the first has read. */
ALWAYS_INLINE void judge_exec_read(struct hw_member *member, struct hw_scratch *scratch)
{
  struct hw_event *event = &scratch->header;
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  u32 index = table_index(event->generation, event->profile);
  struct hw_profile *profile = profile_at(index);
  if (!control || !agent || !profile) {
    end_process(member); /* no table: fails closed */
    count_blind(member->agent, ACTION_EXEC);
    return;
  }
  event->record = profile->record[ACTION_EXEC];
  judge_program(control, profile, index, scratch);
  describe_ruling(event, &scratch->worst);
  describe_location(event, &scratch->file, control);
  int killed = agent->id == member->agent && agent->state & AGENT_KILLED;
  if (is_deadly(control, &scratch->worst) || killed || member->flags & MEMBER_DOOMED) {
    end_process(member);
    event->outcome = OUTCOME_KILLED_BEFORE_EFFECT;
  }
  emit_action(scratch, event, scratch->file.offset, lay_out(scratch, event, control, scratch->argv));
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
    judge_exec_read(member, scratch);
    give_scratch(slot);
  } else if (agent && agent->id == member->agent) {
    end_process(member); /* no memory: fails closed */
    count_blind(member->agent, ACTION_EXEC);
  }
  return 0;
}
