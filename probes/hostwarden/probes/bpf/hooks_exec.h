/* SPDX-License-Identifier: GPL-2.0-only
 * exec on the tiers that refuse: every file that is about to become a program, script and interpreter alike, and argv as
 * the caller passed it. What the caller's other threads change meanwhile is judged once more in the new program's own
 * memory (exec.h), which also writes the record of an exec that was let through. Hook: bprm_check_security. */

#define MAX_ARGUMENTS 1024

/* One argument: `mount` is the pointer to the array, `top` the bytes so far, `written` the width of a pointer. */
int argument_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_walk *walk = &scratch->walk;
  u64 pointer = 0, width = walk->written == 4 ? 4 : 8, at = walk->top;
  if (bpf_probe_read_user(&pointer, MASKED(width, 15), (void *)(walk->mount + turn * width))) {
    walk->failed = 1;
    return 1;
  }
  if (!pointer) {
    walk->ended = 1;
    return 1;
  }
  if (at >= AREA) {
    walk->failed = 1;
    return 1;
  }
  long copied = bpf_probe_read_user_str(&scratch->text[ARGV_AT + MASKED(at, AREA - 1)], AREA, (void *)pointer);
  if (!copied) { /* of an empty one the helper counts nothing, not even its NUL */
    scratch->text[ARGV_AT + MASKED(at, AREA - 1)] = 0;
    copied = 1;
  }
  if (copied < 0 || at + copied > AREA) {
    walk->failed = 1;
    return 1;
  }
  walk->top = at + copied;
  return 0;
}

/* argv as passed: what an honest caller's program will see. */
ALWAYS_INLINE void read_passed_argv(struct hw_scratch *scratch)
{
  struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
  struct hw_walk *walk = &scratch->walk;
  u64 number = system_call();
  int compat = is_compat();
  walk->top = walk->failed = walk->ended = 0;
  walk->written = compat ? 4 : 8;
  if (!regs)
    return;
  if (compat)
    walk->mount = (u32)(number == 358 ? GET(regs, dx) : GET(regs, cx));
  else
    walk->mount = number == 322 || number == 545 ? GET(regs, dx) : GET(regs, si);
  struct hw_loop loop = {.scratch = scratch};
  LOOP(MAX_ARGUMENTS, argument_turn, &loop);
  u32 read = walk->top;
  if (!read) { /* the kernel makes one empty argument of none (since 5.18) */
    scratch->text[ARGV_AT] = 0;
    read = 1;
  }
  if (!walk->ended || walk->failed || read > AREA) {
    scratch->header.flags |= EVENT_FLAG_ARGV_UNREAD;
    scratch->argv_use = ARGV_UNREAD;
    return;
  }
  scratch->argv = read;
  scratch->argv_walk = read - 1;
  scratch->argv_use = ARGV_READ;
}

ALWAYS_INLINE int is_first_file(struct linux_binprm *bprm)
{
  char *filename = (char *)GET(bprm, filename), *interpreter = (char *)GET(bprm, interp);
  return filename == interpreter;
}

/* Is `bprm` at its first file, and is that a program, not a script? Then argv is what the program will see. */
ALWAYS_INLINE int is_plain_program(struct linux_binprm *bprm)
{
  char first = GET(bprm, buf[0]), second = GET(bprm, buf[1]);
  return is_first_file(bprm) && !(first == '#' && second == '!');
}

ALWAYS_INLINE int judge_program_file(struct linux_binprm *bprm)
{
  struct hw_case it;
  int way = enter(&it, ACTION_EXEC);
  if (way != JUDGE)
    return way;
  struct hw_scratch *scratch = it.scratch;
  locate_file(scratch, GET(bprm, file), 0);
  if (is_plain_program(bprm))
    read_passed_argv(scratch);
  recall_hash(bpf_get_current_task_btf(), scratch);
  scratch->actions[0] = 1 << ACTION_EXEC;
  judge(scratch);
  if (!is_refusal(it.control, &scratch->worst)) {
    give_scratch(it.slot);
    return 0;
  }
  return finish(&it);
}

/* Sleepable, for it reads the whole file: the content's hash, for the program that judges next. Only where some policy
 * asks for hashes. What can't be hashed is noted as nothing: what was known of the file before may be no longer so. */
ALWAYS_INLINE int note_hash(struct file *file, int is_first)
{
  struct task_struct *task = bpf_get_current_task_btf();
  u32 tgid = GET(task, tgid);
  struct hw_member *member = processes.lookup(&tgid); /* a leader's storage can't be asked for in a sleepable program */
  if (!member || !file)
    return 0;
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  if (!control || !agent)
    return 0;
  struct hw_profile *profile = profile_at(table_index(control->generation, agent->profile));
  if (!profile || !profile->has_hashes)
    return 0;
  struct hw_digest fresh = {};
  long kind = bpf_ima_file_hash(file, fresh.sha256, 32);
  struct dentry *dentry;
  struct inode *inode;
  struct super_block *superblock;
  READ(dentry, file, f_path.dentry);
  READ(inode, dentry, d_inode);
  READ(superblock, dentry, d_sb);
  READ(fresh.inode, inode, i_ino);
  fresh.superblock = kind == IMA_SHA256 ? (u64)superblock : 0; /* nobody can vouch for it: decide.h fails closed */
  struct hw_digests *known = digests.task_storage_get(task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (!known)
    return 0;
  __builtin_memcpy(&known->last, &fresh, sizeof(fresh));
  if (is_first)
    __builtin_memcpy(&known->first, &fresh, sizeof(fresh));
  return 0;
}
