/* SPDX-License-Identifier: GPL-2.0-only
 * All programs as one object: hooks of two lines that call a named decision. Which tier uses which is in programs.py. */
#include "quirks.h"
#include "event.h"
#include "maps.h"
#include "identity.h"
#include "path.h"
#include "emit.h"
#include "task.h"
#include "match.h"
#include "decide.h"
#include "act.h"
#include "content.h"
#include "teach.h"
#include "open.h"
#include "exec.h"
#include "select.h"
#include "net.h"
#include "hook.h"
#include "hooks_net.h"
#ifdef REFUSING_TIER
#include "hooks_file.h"
#include "hooks_exec.h"
#include "hooks_process.h"
#else
#include "text.h"
#include "change.h"
#include "leave.h"
#endif

/* raw tracepoints with types (tp_btf): context is an array of arguments */
int task_fork(u64 *ctx) { return inherit((void *)ctx[0], (void *)ctx[1]); }
int task_exit(u64 *ctx) { return leave((void *)ctx[0]); }
int select_exec(u64 *ctx) { return select_agent((void *)ctx[0], (void *)ctx[2]); }
int exec_read(u64 *ctx) { return read_exec((void *)ctx[0], (void *)ctx[2]); }
int exec_signal(u64 *ctx) { return judge_exec((void *)ctx[0]); }
#ifndef REFUSING_TIER
int call_signal(u64 *ctx) { return leave_system_call((void *)ctx[0], (long)ctx[1]); }
int signal_signal(u64 *ctx) { return judge_sent(ctx[0], (void *)ctx[1], (void *)ctx[2]); }
#endif

#define PORT(context) __builtin_bswap16((u16)(context)->user_port)
ALWAYS_INLINE int judge4(struct bpf_sock_addr *ctx, u32 action)
{
  struct hw_target to;
  target4(&to, ctx->user_ip4, PORT(ctx));
  int verdict = judge_net(&to, action);
  if (to.is_any && to.is_member)
    ctx->user_ip4 = LOOPBACK4;
  return verdict;
}

ALWAYS_INLINE int judge6(struct bpf_sock_addr *ctx, u32 action)
{
  struct hw_target to;
  /* one load a word: the verifier takes no other access to the context */
  u32 a = ctx->user_ip6[0], b = ctx->user_ip6[1], c = ctx->user_ip6[2], d = ctx->user_ip6[3];
  target6(&to, a, b, c, d, PORT(ctx));
  int verdict = judge_net(&to, action);
  if (to.is_any && to.is_member)
    ctx->user_ip6[3] = *(u32 *)&to.address[12];
  return verdict;
}

int connect4(struct bpf_sock_addr *ctx) { return judge4(ctx, ACTION_CONNECT); }
int connect6(struct bpf_sock_addr *ctx) { return judge6(ctx, ACTION_CONNECT); }
int send4(struct bpf_sock_addr *ctx) { return judge4(ctx, ACTION_SEND); }
int send6(struct bpf_sock_addr *ctx) { return judge6(ctx, ACTION_SEND); }
int make_socket(struct bpf_sock *ctx) { return judge_socket(ctx->family, ctx->type, ctx->protocol); }

/* Tiers that refuse: `lsm` and `modify_return` attach the same functions; only mmap_file's arguments differ. */
#ifdef REFUSING_TIER
#define P(type, n) ((struct type *)ctx[n])
int file_open(u64 *ctx) { ANSWER(judge_opening(P(file, 0))); }
int file_receive(u64 *ctx) { ANSWER(judge_file(P(file, 0), accesses_of(P(file, 0)), 1)); }
int file_ioctl(u64 *ctx) { ANSWER(judge_ioctl(ctx[1], ctx[2])); }
int mmap_lsm(u64 *ctx) { ANSWER(judge_mapping(P(file, 0), ctx[1] | ctx[2], 1)); }
int mmap_security(u64 *ctx) { ANSWER(judge_mapping(P(file, 0), ctx[1], 1)); }
int file_mprotect(u64 *ctx) { ANSWER(judge_protection(P(vm_area_struct, 0), ctx[1] | ctx[2])); }
int path_mknod(u64 *ctx) { ANSWER(judge_making(P(path, 0), P(dentry, 1), ctx[2])); }
int path_mkdir(u64 *ctx) { ANSWER(judge_entry(P(path, 0), P(dentry, 1), 1 << ACTION_CREATE)); }
int path_symlink(u64 *ctx) { ANSWER(judge_entry(P(path, 0), P(dentry, 1), 1 << ACTION_CREATE)); }
int path_unlink(u64 *ctx) { ANSWER(judge_entry(P(path, 0), P(dentry, 1), 1 << ACTION_DELETE)); }
int path_rmdir(u64 *ctx) { ANSWER(judge_entry(P(path, 0), P(dentry, 1), 1 << ACTION_DELETE)); }
int path_truncate(u64 *ctx) { ANSWER(judge_truncation(P(path, 0))); }
int path_chmod(u64 *ctx) { ANSWER(judge_path(P(path, 0), 1 << ACTION_CHMOD)); }
int path_chown(u64 *ctx) { ANSWER(judge_path(P(path, 0), 1 << ACTION_WRITE)); }
int set_attribute(u64 *ctx) { ANSWER(judge_one(P(dentry, 1), 0, 1 << ACTION_WRITE)); } /* setxattr, removexattr */
int set_times(u64 *ctx) { ANSWER(judge_times(P(dentry, SETATTR_DENTRY))); }
int path_rename(u64 *ctx)
{
  ANSWER(judge_two(P(dentry, 1), GET(P(path, 0), mnt), 1 << ACTION_RENAME, P(dentry, 3), GET(P(path, 2), mnt), 1 << ACTION_RENAME,
                   ctx[4] & RENAME_EXCHANGE));
}
int path_link(u64 *ctx)
{
  ANSWER(judge_two(P(dentry, 0), GET(P(path, 1), mnt), 1 << ACTION_LINK | 1 << ACTION_READ | 1 << ACTION_WRITE, P(dentry, 2),
                   GET(P(path, 1), mnt), 1 << ACTION_CREATE, 0));
}
int program_hash(u64 *ctx) { return note_hash(GET(P(linux_binprm, 0), file), is_first_file(P(linux_binprm, 0))); }
int mapping_hash(u64 *ctx) { return ctx[1] & PROT_EXEC ? note_hash(P(file, 0), 0) : 0; }
int program_check(u64 *ctx) { ANSWER(judge_program_file(P(linux_binprm, 0))); }
int unix_connect(u64 *ctx) { ANSWER(judge_unix(P(sock, 1), 1 << ACTION_CONNECT)); }
int unix_send(u64 *ctx) { ANSWER(judge_unix_datagram(P(socket, 0), P(socket, 1))); }
int socket_create(u64 *ctx) { ANSWER(judge_family(ctx[0], ctx[2], ctx[3])); }
int socket_listen(u64 *ctx) { ANSWER(judge_listening(P(socket, 0))); }
int task_alloc(u64 *ctx) { ANSWER(judge_child(ctx[1])); }
int task_kill(u64 *ctx) { ANSWER(judge_signal(P(task_struct, 0), ctx[1], ctx[2])); }
int task_tune(u64 *ctx) { ANSWER(refuse_on_warden(P(task_struct, 0))); } /* nice, scheduler, limits */
int ptrace_check(u64 *ctx) { ANSWER(judge_tracing(P(task_struct, 0), ctx[1])); }
int userns_create(u64 *ctx) { ANSWER(judge_namespace(CLONE_NEWUSER)); }
int capable(u64 *ctx) { ANSWER(judge_capability(P(user_namespace, 1), ctx[2], ctx[3])); }
int sb_mount(u64 *ctx) { ANSWER(judge_mounting(P(path, 1), ctx[3])); }
int sb_umount(u64 *ctx) { ANSWER(judge_unmounting(P(vfsmount, 0))); }
int sb_pivotroot(u64 *ctx) { ANSWER(judge_mount(GET(P(path, 1), dentry), GET(P(path, 1), mnt), 0)); }
int sb_remount(u64 *ctx) { ANSWER(judge_remount(P(super_block, 0))); }
int file_sigio(u64 *ctx) { ANSWER(judge_owner(P(task_struct, 0))); }
int file_fcntl(u64 *ctx) { ANSWER(judge_fcntl(ctx[1], ctx[2])); }
int move_mount(u64 *ctx) { ANSWER(judge_mounting(P(path, 1), 0)); }
int use_bpf(u64 *ctx) { ANSWER(refuse_reach(KERNEL_BPF)); }
int use_perf(u64 *ctx) { ANSWER(refuse_reach(KERNEL_PERF)); }
int set_time(u64 *ctx) { ANSWER(refuse_reach(KERNEL_TIME)); }
int kernel_file(u64 *ctx) { ANSWER(judge_kernel_file(ctx[1])); }
int kernel_data(u64 *ctx) { ANSWER(judge_kernel_file(ctx[0])); }
int teach_getattr(u64 *ctx) { return learn_path(P(path, 0)); }
#endif
