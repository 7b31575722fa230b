/* SPDX-License-Identifier: GPL-2.0-only
 * The end of every system call on the `signal` tier. Non-members cost what is above the member look-up, so it stays
 * short. Hook: sys_exit. */

ALWAYS_INLINE int leave_system_call(struct pt_regs *regs, long result)
{
  u64 up = gate_is_up(), number = SYSCALL_NUMBER(regs) & ~(u64)X32_BIT;
  if (!up) {
    if (result < 0)
      return 0;
    if (number != 257 && number != 2 && number != 437 && number != 85 && number != 304 && number != 438 && number != 5
        && number != 8 && number != 295 && number != 342 && !is_change(number))
      return 0;
  }
  struct hw_member *member = membership();
  if (!member)
    return 0;
  struct task_struct *task = bpf_get_current_task_btf();
  struct hw_agent *agent = agent_of(member);
  if (up)
    settle_debts(member);
  if (agent && agent->id == member->agent && agent->state & AGENT_FROZEN)
    bpf_send_signal(SIGSTOP);
  if (result < 0)
    return 0;
  int compat = GET(task, thread_info.status) & TS_COMPAT;
  if (is_open(number, compat)) {
    if (member->flags & MEMBER_WARDEN)
      return learn(task, file_at(task, result));
    return judge_open(regs, result, member);
  }
  if (!compat && is_change(number))
    return leave_change(regs, number, task, member);
  return 0;
}
