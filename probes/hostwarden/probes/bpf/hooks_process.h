/* SPDX-License-Identifier: GPL-2.0-only
 * Processes, namespaces and mounts on the tiers that refuse, and what no agent may whatever its policies say.
 * Hooks: task_alloc, task_kill, task_set*, ptrace_access_check, userns_create, capable, sb_*, move_mount, bpf,
 * perf_event_open, kernel_*, settime, file_ioctl. */

#define CLONE_NEW 0x7e020080 /* every CLONE_NEW* flag */
#define CLONE_NEWUSER 0x10000000
#define CAP_DAC_READ_SEARCH 2
#define PF_IO_WORKER 0x10
#define CAP_SYS_PTRACE 19
#define CAP_SYS_ADMIN 21
#define CAP_OPT_NOAUDIT 2
#define PTRACE_MODE_ATTACH 2
#define PTRACE_MODE_NOAUDIT 4
#define READING_MODULE 2 /* enum kernel_read_file_id */
#define READING_KEXEC_INITRAMFS 4
#define PR_SET_MM 35
#define F_SETOWN 8
#define F_SETOWN_EX 15
#define MNT_SHARED 0x1000 /* include/linux/mount.h */
#define TIOCSTI 0x5412
#define TIOCLINUX 0x541c
#define FIOSETOWN 0x8901
#define SIOCSPGRP 0x8902

/* Is `task` a member of the same agent? */
ALWAYS_INLINE int is_own(struct hw_case *it, struct task_struct *task)
{
  u32 tgid = GET(task, tgid);
  struct hw_member *other = processes.lookup(&tgid);
  return (other && other->agent == it->member->agent) || !is_alive(task);
}

ALWAYS_INLINE int is_warden(struct hw_case *it, struct task_struct *task)
{
  return it->control->warden && (u32)GET(task, tgid) == it->control->warden;
}

/* Something done to another process: free within the agent, never to the warden, else as the policies say. */
ALWAYS_INLINE int judge_on_process(struct task_struct *task, u32 action, u32 detail, int is_asked)
{
  struct hw_case it;
  int way = enter(&it, action);
  if (way != JUDGE)
    return way;
  u32 tgid = GET(task, tgid);
  if (is_warden(&it, task))
    return refuse_always(&it, ACTION_KERNEL, tgid, KERNEL_WARDEN);
  if (is_asked && !is_own(&it, task))
    return judge_plain(&it, action, tgid, detail);
  give_scratch(it.slot);
  return 0;
}

ALWAYS_INLINE int judge_signal(struct task_struct *task, u64 info, u32 signal)
{
  if (info == 1 || !signal)
    return 0; /* the kernel's own (SEND_SIG_PRIV), or only asking whether it is there */
  return judge_on_process(task, ACTION_SIGNAL, signal, 1);
}

ALWAYS_INLINE int judge_tracing(struct task_struct *task, u32 mode)
{
  if (mode & PTRACE_MODE_NOAUDIT)
    return 0;
  if (mode & PTRACE_MODE_ATTACH)
    return judge_on_process(task, ACTION_PTRACE, mode, 1);
  /* Looking into /proc is reading files. Of the warden nothing is shown, without a word: `ps` asks of every process. */
  struct hw_member *member = membership();
  struct hw_control *control = switchboard();
  return member && !(member->flags & MEMBER_WARDEN) && control && control->warden && (u32)GET(task, tgid) == control->warden;
}

ALWAYS_INLINE int refuse_on_warden(struct task_struct *task)
{
  struct hw_case it;
  struct hw_member *member = membership();
  if (!member)
    return 0;
  int way = enter(&it, ACTION_KERNEL);
  if (way != JUDGE)
    return way;
  if (is_warden(&it, task))
    return refuse_always(&it, ACTION_KERNEL, GET(task, tgid), KERNEL_WARDEN);
  give_scratch(it.slot);
  return 0;
}

ALWAYS_INLINE int judge_namespace(u32 flags)
{
  struct hw_case it;
  int way = enter(&it, ACTION_NAMESPACE);
  if (way != JUDGE)
    return way;
  return judge_plain(&it, ACTION_NAMESPACE, 0, flags);
}

/* A child is a member before anybody can see it (task.h does the rest when it starts); an agent that is ended or stopped
 * makes no more. */
ALWAYS_INLINE int judge_child(u64 flags)
{
  struct hw_member *member = membership();
  if (!member || member->flags & MEMBER_WARDEN)
    return 0;
  struct hw_agent *agent = agent_of(member);
  if (agent && agent->id == member->agent && agent->state & AGENT_KILLED) {
    bpf_send_signal(SIGKILL);
    return 1;
  }
  if (flags & CLONE_NEW && !(flags & CLONE_NEWUSER)) /* with a user namespace: judged at its own hook */
    return judge_namespace(flags & CLONE_NEW);
  return 0;
}

ALWAYS_INLINE u32 asked_namespaces(void)
{
  struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
  u64 number = system_call();
  if (!regs)
    return 0;
  if (is_compat())
    return number == 310 ? GET(regs, bx) & CLONE_NEW : number == 346 ? GET(regs, cx) | 1 : 0;
  return number == 272 ? GET(regs, di) & CLONE_NEW : number == 308 ? GET(regs, si) | 1 : 0;
}

/* Calls for which CAP_SYS_ADMIN is asked and whose action policies decide: mounts and namespaces. */
ALWAYS_INLINE int has_own_action(u64 number)
{
  if (is_compat())
    return number == 21 || number == 52 || number == 217 || number == 310 || number == 346 || (number >= 428 && number <= 433);
  return number == 155 || number == 165 || number == 166 || number == 272 || number == 308 || (number >= 428 && number <= 433);
}

/* The kernel works for a task with somebody else's credentials: an overlay with those of who mounted it. Not io_uring's,
 * which are the agent's own. */
ALWAYS_INLINE int is_for_others(void)
{
  struct task_struct *task = bpf_get_current_task_btf();
  u32 flags = GET(task, flags);
  return (u64)GET(task, cred) != (u64)GET(task, real_cred) && system_call() != 426 && !(flags & PF_IO_WORKER);
}

/* prctl(PR_SET_MM) lets a process say what its program is, in a user namespace of its own, too: nobody needs it but who
 * restores checkpoints, and what is mapped is judged by what the program is. */
ALWAYS_INLINE int sets_own_program(void)
{
  struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
  return regs && system_call() == (is_compat() ? 172 : 157) && (is_compat() ? GET(regs, bx) : GET(regs, di)) == PR_SET_MM;
}

/* ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd */
ALWAYS_INLINE int is_tracing(u64 number)
{
  return number == 101 || number == 310 || number == 311 || number == 312 || number == 438;
}

/* Capabilities of the host (not of a user namespace of the agent's own) that no agent has. */
ALWAYS_INLINE int judge_capability(struct user_namespace *namespace, u32 capability, u32 options)
{
  struct hw_member *member = membership();
  if (!member || member->flags & MEMBER_WARDEN)
    return 0;
  struct hw_control *control = switchboard();
  if (!control || is_for_others())
    return 0;
  if (sets_own_program()) {
    struct hw_case setter;
    int way = enter(&setter, ACTION_CAPABILITY);
    return way == JUDGE ? refuse_always(&setter, ACTION_CAPABILITY, capability, 0) : way;
  }
  if (GET(namespace, level) != 0)
    return 0;
  if (capability == CAP_SYS_ADMIN) {
    u32 asked = asked_namespaces();
    if (asked & ~CLONE_NEWUSER)
      return judge_namespace(asked & CLONE_NEW);
    if (has_own_action(system_call()))
      return 0;
  }
  if (!(control->capabilities >> (capability & 63) & 1))
    return 0;
  if (!control->armed)
    return 0;
  u64 number = system_call();
  if (options & CAP_OPT_NOAUDIT || (capability == CAP_DAC_READ_SEARCH && number != 304)
      || (capability == CAP_SYS_PTRACE && !is_tracing(number)))
    return 1; /* the kernel asks by itself (at every look-up of root's, for every process that `ps` shows): no attempt */
  struct hw_case it;
  int way = enter(&it, ACTION_CAPABILITY);
  if (way != JUDGE)
    return way;
  return refuse_always(&it, ACTION_CAPABILITY, capability, 0);
}

ALWAYS_INLINE int refuse_reach(u32 what)
{
  struct hw_case it;
  int way = enter(&it, ACTION_KERNEL);
  if (way != JUDGE)
    return way;
  return refuse_always(&it, ACTION_KERNEL, 0, what);
}

ALWAYS_INLINE int judge_kernel_file(u32 id)
{
  if (id < READING_MODULE || id > READING_KEXEC_INITRAMFS)
    return 0;
  return refuse_reach(id == READING_MODULE ? KERNEL_MODULE : KERNEL_KEXEC);
}


/* Mounting over something, or taking a mount away: refused also where it would change what rules say of what is below. */
ALWAYS_INLINE int judge_mount(struct dentry *dentry, struct vfsmount *mount, int is_over)
{
  struct hw_case it;
  int way = enter(&it, ACTION_MOUNT);
  if (way != JUDGE)
    return way;
  struct hw_scratch *scratch = it.scratch;
  locate(scratch, dentry, mount, 0);
  locate_nothing(&scratch->at[1]);
  scratch->actions[0] = 1 << ACTION_MOUNT;
  scratch->has_second = 1;
  judge(scratch);
  /* In a namespace of its own it hides nothing from anybody, and paths are the superblocks': nothing changes. */
  int is_hosts = (u64)GET(GET(bpf_get_current_task_btf(), nsproxy), mnt_ns) == it.control->host_mnt_ns;
  u32 flags = 0;
  if (mount)
    READ(flags, mount, mnt_flags);
  is_hosts |= !mount || flags & MNT_SHARED; /* what happens on a shared mount happens on its peers, the host's too */
  if (is_over && is_hosts && crosses_boundary(scratch, 0, MOVES_FOLDER) && !asks_for_refusal(&scratch->worst))
    weigh(&scratch->worst, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
  return finish(&it);
}

#define MS_PROPAGATION 0x1e0000

ALWAYS_INLINE int judge_mounting(struct path *over, u64 flags)
{
  return judge_mount(GET(over, dentry), GET(over, mnt), !(flags & MS_PROPAGATION));
}

/* What is taken away is judged by where it stands. */
ALWAYS_INLINE int judge_unmounting(struct vfsmount *vfsmount)
{
  struct mount *mount = (struct mount *)((u64)vfsmount - __builtin_offsetof(struct mount, mnt)), *parent = 0;
  struct dentry *point = 0;
  READ(parent, mount, mnt_parent);
  READ(point, mount, mnt_mountpoint);
  u64 above = (u64)parent + __builtin_offsetof(struct mount, mnt);
  OPAQUE(above);
  return judge_mount(TYPED(dentry, point), (struct vfsmount *)above, 1);
}

/* A file system changed as a whole, wherever it is seen: its root stands for it. */
ALWAYS_INLINE int judge_remount(struct super_block *superblock) { return judge_mount(GET(superblock, s_root), 0, 1); }

/* A signal that a file sends when something arrives: to the warden never, whoever made it arrive. */
ALWAYS_INLINE int judge_owner(struct task_struct *task)
{
  struct hw_control *control = switchboard();
  return control && control->warden && (u32)GET(task, tgid) == control->warden;
}

/* To whom a file will send signals is decided when that is said. */
ALWAYS_INLINE int judge_new_owner(u32 target)
{
  struct hw_case it;
  int way = enter(&it, ACTION_SIGNAL);
  if (way != JUDGE)
    return way;
  if (it.control->warden && target == it.control->warden)
    return refuse_always(&it, ACTION_KERNEL, target, KERNEL_WARDEN);
  struct hw_member *other = processes.lookup(&target);
  if (target && (!other || other->agent != it.member->agent))
    return judge_plain(&it, ACTION_SIGNAL, target, 0);
  give_scratch(it.slot);
  return 0;
}

ALWAYS_INLINE int judge_fcntl(u32 command, u64 argument)
{
  u32 pair[2] = {};
  if (command == F_SETOWN)
    return judge_new_owner(argument);
  if (command != F_SETOWN_EX)
    return 0;
  bpf_probe_read_user(pair, sizeof(pair), (void *)argument); /* type, pid */
  return judge_new_owner(pair[1]);
}

/* Keys pressed for somebody at a terminal, and one more way to say who gets a file's signals. */
ALWAYS_INLINE int judge_ioctl(u32 command, u64 argument)
{
  u32 target = 0;
  if (command == TIOCSTI || command == TIOCLINUX)
    return refuse_reach(KERNEL_TTY);
  if (command != FIOSETOWN && command != SIOCSPGRP)
    return 0;
  bpf_probe_read_user(&target, sizeof(target), (void *)argument);
  return judge_new_owner(target);
}
