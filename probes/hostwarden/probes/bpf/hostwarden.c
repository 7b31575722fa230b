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
#include "teach.h"
#include "open.h"
#include "exec.h"
#include "select.h"
#include "net.h"

/* raw tracepoints with types (tp_btf): context is an array of arguments */
int task_fork(u64 *ctx) { return inherit((void *)ctx[0], (void *)ctx[1]); }
int task_exit(u64 *ctx) { return leave((void *)ctx[0]); }
int select_exec(u64 *ctx) { return select_agent((void *)ctx[0], (void *)ctx[2]); }
int exec_read(u64 *ctx) { return read_exec((void *)ctx[0], (void *)ctx[2]); }
int exec_signal(u64 *ctx) { return judge_exec((void *)ctx[0]); }
int open_signal(u64 *ctx) { return leave_system_call((void *)ctx[0], (long)ctx[1]); }

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
int make_socket(struct bpf_sock *ctx) { return judge_socket(ctx->type, ctx->protocol); }
