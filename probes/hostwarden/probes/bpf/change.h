/* SPDX-License-Identifier: GPL-2.0-only
 * Everything but open and exec on the `signal` tier, when the system call has done it: names made, moved and taken away,
 * modes, mounts, namespaces, code that is mapped, unix sockets, listening, tracing. Who was not allowed to dies then
 * (killed_after_effect), or, for mapped code, before it can run it. Calls of 32-bit programs and io_uring's aren't seen.
 * Hooks: sys_exit, signal_generate. */

struct hw_change {
  u64 text[2];     /* paths as passed, 0: none */
  s32 folder[2];   /* descriptors that they start from */
  u32 actions[2];
  s32 descriptor;  /* what is acted on is open */
  u32 plain;       /* an action without a path */
  u32 object, detail;
};

#define ON(action) (1u << ACTION_##action)
#define ONE(path, what) { change->text[0] = path; change->actions[0] = what; break; }
#define ONE_AT(from, path, what) { change->folder[0] = from; ONE(path, what) }
#define TWO(first, second, what, other) { change->text[0] = first; change->text[1] = second; change->actions[0] = what; change->actions[1] = other; break; }
#define TWO_AT(from, first, to, second, what, other) { change->folder[0] = from; change->folder[1] = to; TWO(first, second, what, other) }
#define OPENED(number, what) { change->descriptor = number; change->actions[0] = what; break; }
#define CLONE_NEW_ALL 0x7e020080
#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206
#define PROT_EXECUTE 4

/* Which system calls are looked at when they return: the first thing that every call of every process meets. */
ALWAYS_INLINE int is_change(u64 number)
{
  switch (number) {
  case 9: case 42: case 49: case 50: case 76: case 82: case 83: case 84: case 86: case 87: case 88: case 90: case 91: case 92: case 93:
  case 94: case 101: case 133: case 155: case 165: case 166: case 188: case 189: case 190: case 197: case 198: case 199:
  case 258: case 259: case 260: case 263: case 264: case 265: case 266: case 268: case 272: case 308: case 310: case 311:
  case 316: case 429: case 452:
    return 1;
  }
  return 0;
}

ALWAYS_INLINE void read_change(struct pt_regs *regs, u64 number, struct hw_change *change)
{
  u64 a = GET(regs, di), b = GET(regs, si), c = GET(regs, dx), d = GET(regs, r10);
  change->folder[0] = change->folder[1] = AT_FDCWD;
  change->descriptor = -1;
  switch (number) {
  case 84: case 87: ONE(a, ON(DELETE))
  case 263: ONE_AT(a, b, ON(DELETE))
  case 82: TWO(a, b, ON(RENAME), ON(RENAME))
  case 264: case 316: TWO_AT(a, b, c, d, ON(RENAME), ON(RENAME))
  case 86: TWO(a, b, ON(LINK) | ON(READ) | ON(WRITE), ON(CREATE))
  case 265: TWO_AT(a, b, c, d, ON(LINK) | ON(READ) | ON(WRITE), ON(CREATE))
  case 83: case 133: ONE(a, ON(CREATE))
  case 258: case 259: ONE_AT(a, b, ON(CREATE))
  case 88: ONE(b, ON(CREATE))
  case 266: ONE_AT(b, c, ON(CREATE))
  case 90: ONE(a, ON(CHMOD))
  case 268: case 452: ONE_AT(a, b, ON(CHMOD))
  case 91: OPENED(a, ON(CHMOD))
  case 76: case 92: case 94: case 188: case 189: case 197: case 198: ONE(a, ON(WRITE))
  case 260: ONE_AT(a, b, ON(WRITE))
  case 93: case 190: case 199: OPENED(a, ON(WRITE))
  case 155: case 166: ONE(a, ON(MOUNT))
  case 165: ONE(b, ON(MOUNT))
  case 429: ONE_AT(c, d, ON(MOUNT))
  case 9: {
    if (c & PROT_EXECUTE && (s32)GET(regs, r8) >= 0)
      OPENED(GET(regs, r8), ON(LOAD))
    break;
  }
  case 272: case 308: {
    u64 flags = number == 272 ? a & CLONE_NEW_ALL : b | 1;
    if (flags)
      change->plain = ON(NAMESPACE);
    change->detail = flags & CLONE_NEW_ALL;
    break;
  }
  case 101: {
    if (a == PTRACE_ATTACH || a == PTRACE_SEIZE)
      change->plain = ON(PTRACE);
    change->object = b;
    break;
  }
  case 310: case 311: {
    change->plain = ON(PTRACE);
    change->object = a;
    break;
  }
  }
}

/* Where the text starts: the process's root or folder, or an open one. 0: nowhere. */
ALWAYS_INLINE int ask_text(struct hw_scratch *scratch, struct task_struct *task, u64 text, s32 folder, u32 which)
{
  char first = 0;
  struct dentry *dentry;
  struct vfsmount *mount;
  bpf_probe_read_user(&first, 1, (void *)text);
  if (first == '/' || folder == AT_FDCWD) {
    struct fs_struct *fs = GET(task, fs);
    if (!fs)
      return 0;
    u64 at = (u64)fs + (first == '/' ? __builtin_offsetof(struct fs_struct, root) : __builtin_offsetof(struct fs_struct, pwd));
    OPAQUE(at);
    READ(dentry, (struct path *)at, dentry);
    READ(mount, (struct path *)at, mnt);
  } else {
    struct file *file = file_at(task, folder);
    if (!file)
      return 0;
    LOAD(dentry, file, f_path.dentry);
    LOAD(mount, file, f_path.mnt);
  }
  scratch->ask.dentry = (u64)dentry;
  scratch->ask.mount = (u64)mount;
  scratch->ask.which = which;
  scratch->ask.text = text;
  CALL(locate_text, scratch);
  return 1;
}

/* The record, and death where the ruling is one. */
ALWAYS_INLINE void settle_change(struct hw_scratch *scratch, struct hw_control *control, struct hw_agent *agent,
                                 struct hw_member *member, u32 outcome)
{
  struct hw_event *event = &scratch->header;
  describe_ruling(event, &scratch->worst);
  describe_location(event, &scratch->at[0], control);
  if (scratch->worst.is_linked)
    event->flags |= EVENT_FLAG_LINKED;
  if (is_deadly(control, &scratch->worst)) {
    punish(agent, member, &scratch->worst);
    event->outcome = outcome;
  }
  emit_action(scratch, event, scratch->at[0].offset, lay_out(scratch, event, control, 0));
}

ALWAYS_INLINE void judge_change(struct hw_scratch *scratch, struct task_struct *task, struct hw_change *change,
                                struct hw_control *control, struct hw_agent *agent, struct hw_member *member)
{
  int is_there = 1;
  if (change->plain) {
    locate_nothing(&scratch->at[0]);
    scratch->header.object = change->object;
    scratch->header.detail = change->detail;
    scratch->actions[0] = change->plain;
  } else if (change->descriptor >= 0) {
    struct file *file = file_at(task, change->descriptor);
    if (!file)
      return; /* another thread has closed it */
    locate_file(scratch, file, 0);
    scratch->actions[0] = change->actions[0];
  } else {
    is_there = ask_text(scratch, task, change->text[0], change->folder[0], 0);
    scratch->actions[0] = change->actions[0];
    if (change->text[1]) {
      is_there &= ask_text(scratch, task, change->text[1], change->folder[1], 1);
      scratch->actions[1] = change->actions[1];
    }
  }
  if (!is_there) {
    locate_nothing(&scratch->at[0]);
    scratch->at[0].place = PLACED_NOWHERE;
  }
  judge(scratch);
  /* Whether a folder was renamed can't be seen any more. */
  if (change->text[1] && crosses_boundary(scratch, 0, change->actions[0] & ON(LINK) ? MOVES_FILE : MOVES_SOMETHING)
      && !asks_for_refusal(&scratch->worst)) {
    scratch->header.action = ACTION_RENAME;
    weigh(&scratch->worst, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
  }
  settle_change(scratch, control, agent, member, change->actions[0] == ON(LOAD) ? OUTCOME_KILLED_BEFORE_EFFECT : OUTCOME_KILLED_AFTER_EFFECT);
}

ALWAYS_INLINE struct sock *socket_at(struct task_struct *task, u64 descriptor)
{
  struct file *file = file_at(task, descriptor);
  void *private = 0;
  struct sock *sock = 0;
  if (!file)
    return 0;
  READ(private, file, private_data);
  READ(sock, (struct socket *)private, sk);
  return sock;
}

/* bind, connect and listen: IPv4 and IPv6 connections were judged by the cgroup programs before. */
ALWAYS_INLINE int judge_socket_call(struct hw_case *it, struct pt_regs *regs, struct task_struct *task, u64 number)
{
  struct hw_scratch *scratch = it->scratch;
  struct sock *sock = socket_at(task, GET(regs, di)), *peer = 0;
  u16 family = 0;
  READ(family, sock, __sk_common.skc_family);
  if (number == 49) { /* bind makes a file */
    if (family != AF_UNIX)
      return 0;
    locate_unix(scratch, sock, &scratch->at[0]);
    if (!HAS_PATH(scratch->at[0].place) || scratch->header.flags & EVENT_FLAG_ABSTRACT)
      return 0;
    scratch->header.flags &= ~EVENT_FLAG_UNIX;
    scratch->actions[0] = ON(CREATE);
    judge(scratch);
  } else if (number == 42) {
    if (family != AF_UNIX)
      return 0;
    READ(peer, (struct unix_sock *)sock, peer);
    locate_unix(scratch, peer, &scratch->at[0]);
    scratch->actions[0] = ON(CONNECT);
    scratch->header.object = AF_UNIX;
    judge(scratch);
  } else if (family == AF_INET || family == AF_INET6) {
    rule_on_listening(it, sock, family);
  } else {
    if (family == AF_UNIX) {
      locate_unix(scratch, sock, &scratch->at[0]);
    } else {
      locate_nothing(&scratch->at[0]);
      scratch->header.flags |= EVENT_FLAG_SOCKET;
    }
    scratch->actions[0] = ON(LISTEN);
    scratch->header.object = family;
    judge(scratch);
  }
  settle_change(scratch, it->control, it->agent, it->member, OUTCOME_KILLED_AFTER_EFFECT);
  return 0;
}

ALWAYS_INLINE int is_outside(struct hw_case *it, u32 tgid)
{
  struct hw_member *other = processes.lookup(&tgid);
  return !other || other->agent != it->member->agent;
}

ALWAYS_INLINE int begin_change(struct hw_case *it, struct hw_member *member, u32 action)
{
  it->member = member;
  it->control = switchboard();
  it->agent = agent_of(member);
  if (!it->control || !it->agent || it->agent->id != member->agent || member->flags & MEMBER_WARDEN)
    return 0;
  it->scratch = take_scratch(&it->slot);
  if (!it->scratch) {
    end_process(member); /* all memory is in use: fails closed */
    count_blind(member->agent, action);
    return 0;
  }
  begin_event(it->scratch, member, it->agent, it->control, TIER_SIGNAL);
  return 1;
}

ALWAYS_INLINE int leave_change(struct pt_regs *regs, u64 number, struct task_struct *task, struct hw_member *member)
{
  struct hw_change change = {};
  struct hw_case it;
  int is_socket = number == 42 || number == 49 || number == 50;
  read_change(regs, number, &change);
  if (!is_socket && !change.plain && !change.actions[0])
    return 0;
  if (!begin_change(&it, member, ACTION_WRITE))
    return 0;
  if (is_socket)
    judge_socket_call(&it, regs, task, number);
  else if (change.plain != ON(PTRACE) || is_outside(&it, change.object))
    judge_change(it.scratch, task, &change, it.control, it.agent, member);
  give_scratch(it.slot);
  return 0;
}

/* A signal to a process that isn't the agent's. The kernel's own, timers' and children's have other codes. */
ALWAYS_INLINE int judge_sent(u32 signal, struct kernel_siginfo *info, struct task_struct *to)
{
  struct hw_case it;
  struct hw_member *member = membership();
  if (!member || (u64)info <= 1)
    return 0;
  if (GET(info, si_code) > 0 || GET(info, si_code) == -2)
    return 0;
  if (!begin_change(&it, member, ACTION_SIGNAL))
    return 0;
  u32 tgid = GET(to, tgid);
  if (is_outside(&it, tgid) && is_alive(to)) {
    struct hw_change change = {.plain = ON(SIGNAL), .object = tgid, .detail = signal};
    judge_change(it.scratch, bpf_get_current_task_btf(), &change, it.control, it.agent, member);
  }
  give_scratch(it.slot);
  return 0;
}
