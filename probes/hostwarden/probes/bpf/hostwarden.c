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
int connect4(struct bpf_sock_addr *ctx) { struct hw_target to; target4(&to, ctx->user_ip4, PORT(ctx)); return judge_net(&to, ACTION_CONNECT); }
int send4(struct bpf_sock_addr *ctx) { struct hw_target to; target4(&to, ctx->user_ip4, PORT(ctx)); return judge_net(&to, ACTION_SEND); }

ALWAYS_INLINE void target6(struct hw_target *target, struct bpf_sock_addr *ctx)
{
  /* one load a word: the verifier takes no other access to the context */
  u32 a = ctx->user_ip6[0], b = ctx->user_ip6[1], c = ctx->user_ip6[2], d = ctx->user_ip6[3];
  u32 *to = (u32 *)target->address;
  if (!(a | b | c | d))
    d = 0x01000000; /* the kernel connects :: to ::1 */
  if (!(a | b | d) && c == 0xffff0000)
    d = LOOPBACK4;
  to[0] = a;
  to[1] = b;
  to[2] = c;
  to[3] = d;
  target->port = PORT(ctx);
}
int connect6(struct bpf_sock_addr *ctx) { struct hw_target to; target6(&to, ctx); return judge_net(&to, ACTION_CONNECT); }
int send6(struct bpf_sock_addr *ctx) { struct hw_target to; target6(&to, ctx); return judge_net(&to, ACTION_SEND); }
