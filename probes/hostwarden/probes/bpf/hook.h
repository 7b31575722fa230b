/* SPDX-License-Identifier: GPL-2.0-only
 * What every hook of the tiers that refuse (`lsm`, `modify_return`) does: who is it, judge, record, answer. The programs
 * are the same on both: one is attached as an LSM program, the other as fmod_ret of the security_* function. */

/* From 6.12 on the verifier wants to see that the answer is an errno: a constant that clang can't compute with. */
#define ANSWER(refused) ({ if (refused) { int _no = -EPERM; OPAQUE(_no); return _no; } return 0; })

/* One attempt of a member. */
struct hw_case {
  struct hw_member *member;
  struct hw_control *control;
  struct hw_agent *agent;
  struct hw_scratch *scratch;
  u32 slot;
};
#define PASS 0   /* not a member: nobody's business */
#define REFUSE 1 /* its agent is ended or stopped, or there is no memory left to judge with: fails closed */
#define JUDGE 2

/* Non-members cost what is above the first return, so it stays short. */
ALWAYS_INLINE int enter(struct hw_case *it, u32 action)
{
  it->member = membership();
  if (!it->member || it->member->flags & MEMBER_WARDEN)
    return PASS;
  it->control = switchboard();
  it->agent = agent_of(it->member);
  if (!it->control || !it->agent || it->agent->id != it->member->agent)
    return PASS; /* no agent: its slot was freed */
  if (it->agent->state & AGENT_KILLED || it->member->flags & MEMBER_DOOMED) {
    bpf_send_signal(SIGKILL);
    return REFUSE;
  }
  if (it->agent->state & AGENT_FROZEN) {
    bpf_send_signal(SIGSTOP);
    return REFUSE;
  }
  it->scratch = take_scratch(&it->slot);
  if (!it->scratch) {
    count_blind(it->member->agent, action);
    return REFUSE;
  }
  begin_event(it->scratch, it->member, it->agent, it->control, TIER_HOOKS);
  return JUDGE;
}

ALWAYS_INLINE int finish(struct hw_case *it)
{
  int refused = conclude(it->scratch);
  give_scratch(it->slot);
  return refused;
}

ALWAYS_INLINE u64 system_call(void)
{
  struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
  return regs ? GET(regs, orig_ax) & ~(u64)X32_BIT : 0;
}

ALWAYS_INLINE int is_compat(void) { return GET(bpf_get_current_task_btf(), thread_info.status) & TS_COMPAT; }

/* Something with a path. 1: the caller gets EPERM. */
ALWAYS_INLINE int judge_one(struct dentry *dentry, struct vfsmount *mount, u32 actions)
{
  struct hw_case it;
  int way = enter(&it, number_of_bit(actions & -actions));
  if (way != JUDGE)
    return way;
  struct hw_location *at = &it.scratch->at[0];
  locate(it.scratch, dentry, mount, 0);
  if (at->place == PLACED_LAYER) {
    give_scratch(it.slot);
    return 0;
  }
  it.scratch->actions[0] = actions;
  judge(it.scratch);
  return finish(&it);
}

/* Something without a path or an address: rules without a condition, and `otherwise`. */
ALWAYS_INLINE int judge_plain(struct hw_case *it, u32 action, u32 object, u32 detail)
{
  struct hw_scratch *scratch = it->scratch;
  locate_nothing(&scratch->at[0]);
  scratch->header.object = object;
  scratch->header.detail = detail;
  scratch->actions[0] = 1 << action;
  judge(scratch);
  return finish(it);
}

/* What no agent may, root or not, whatever its policies say: the kernel's own doors, and hostwarden's. */
ALWAYS_INLINE int refuse_always(struct hw_case *it, u32 action, u32 object, u32 detail)
{
  struct hw_scratch *scratch = it->scratch;
  locate_nothing(&scratch->at[0]);
  scratch->header.action = action;
  scratch->header.record = RECORD_ALL;
  scratch->header.object = object;
  scratch->header.detail = detail;
  weigh(&scratch->worst, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
  return finish(it);
}
