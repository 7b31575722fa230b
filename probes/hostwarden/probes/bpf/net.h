/* SPDX-License-Identifier: GPL-2.0-only
 * Enforces connect and addressed send over IP: real denial, EPERM to the caller, nothing leaves. TCP fast open comes
 * through the same hooks. Identity by tgid: cgroup programs can't read task storage before 6.18.
 * Hooks: cgroup connect4, connect6, sendmsg4, sendmsg6. Maps: NETS, processes. */

struct hw_target { u8 address[16]; u32 port; u32 family; };

#define LOOPBACK4 0x0100007f /* 127.0.0.1 in network order, read as a little-endian word */

ALWAYS_INLINE void target4(struct hw_target *target, u32 address, u32 port)
{
  *(u64 *)&target->address[0] = 0;
  *(u32 *)&target->address[8] = 0xffff0000; /* ::ffff:0:0, as IPv4 is matched everywhere */
  *(u32 *)&target->address[12] = address ? address : LOOPBACK4; /* the kernel connects 0.0.0.0 to loopback */
  target->port = port;
}

ALWAYS_INLINE void decide_net(u32 generation, u32 profile_number, struct hw_target *target, u32 action, struct hw_ruling *ruling,
                              u32 *record)
{
  u32 index = table_index(generation, profile_number);
  struct hw_profile *profile = profile_at(index);
  void *net = bpf_map_lookup_elem(NETS, &index);
  *record = RECORD_ALL;
  if (!profile || !net) {
    weigh(ruling, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0)); /* no table: fails closed */
    return;
  }
  *record = profile->record[action & 7];
  struct hw_net_key key = {.prefixlen = 160, .user = user_class(profile), .port = target->port};
  __builtin_memcpy(key.address, target->address, 16);
  struct hw_net_value *value = key.port ? bpf_map_lookup_elem(net, &key) : 0;
  if (!value) {
    key.port = 0; /* every port that no entry names */
    value = bpf_map_lookup_elem(net, &key);
  }
  if (!value) {
    weigh(ruling, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0)); /* the table always has a /0: it is broken, fails closed */
    return;
  }
  add_decision(ruling, &value->decisions[action == ACTION_SEND]);
}

/* 1: may go on. 0: the caller gets EPERM. */
ALWAYS_INLINE int judge_net(struct hw_target *target, u32 action)
{
  u32 tgid = bpf_get_current_pid_tgid() >> 32;
  struct hw_member *member = processes.lookup(&tgid);
  if (!member)
    return 1;
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  if (!control || !agent || agent->id != member->agent)
    return 1; /* the agent is gone, and this process with it */
  if (agent->state & AGENT_KILLED)
    return 0;
  struct hw_event event = {.kind = EVENT_ACTION, .tier = TIER_CGROUP, .action = action};
  u64 address = bpf_get_current_task();
  OPAQUE(address); /* or bcc takes it for a pointer of its own and rewrites inside the macros */
  struct task_struct *task = (struct task_struct *)address;
  struct task_struct *leader;
  u64 ids = bpf_get_current_pid_tgid();
  struct hw_ruling ruling = {};
  u32 record = RECORD_ALL;
  event.generation = control->generation;
  decide_net(event.generation, agent->profile, target, action, &ruling, &record);
  READ(leader, task, group_leader);
  READ(event.start, leader, start_boottime);
  event.time = bpf_ktime_get_boot_ns();
  event.agent = member->agent;
  event.tgid = tgid;
  event.tid = ids;
  event.forker = member->forker;
  event.forker_start = member->forker_start;
  event.uid = (u32)bpf_get_current_uid_gid();
  event.accesses = 1 << action;
  event.profile = agent->profile;
  event.record = record;
  event.port = target->port;
  __builtin_memcpy(event.address, target->address, 16);
  describe_ruling(&event, &ruling);
  int refused = control->armed && VERDICT_OF(ruling.enforced) >= VERDICT_DENY;
  if (refused)
    event.outcome = OUTCOME_PREVENTED;
  if (!control->armed)
    event.flags |= EVENT_FLAG_DISARMED;
  if (refused && VERDICT_OF(ruling.enforced) == VERDICT_KILL && !(member->flags & MEMBER_DOOMED)) {
    member->flags |= MEMBER_DOOMED; /* this program type can't send signals: sys_exit does, before the caller sees EPERM */
    raise_gate();
    event.outcome = OUTCOME_KILLED_BEFORE_EFFECT;
  }
  emit_net(&event);
  return !refused;
}
