/* SPDX-License-Identifier: GPL-2.0-only
 * Enforces connect and addressed send over IP: real denial, EPERM to the caller, nothing leaves. TCP fast open comes
 * through the same hooks. Identity by tgid: cgroup programs can't read task storage before 6.18.
 * The kernel takes 0.0.0.0 and :: for "this host": loopback, or what the socket is bound to. They are judged as loopback,
 * and for members rewritten to it, so that what was judged is what is reached.
 * Hooks: cgroup connect4, connect6, sendmsg4, sendmsg6. Maps: NETS, processes. */

struct hw_target {
  u8 address[16];
  u32 port;
  u32 is_any;    /* 0.0.0.0 or :: as passed: judged as loopback */
  u32 is_member; /* set by judge_net */
};

#define LOOPBACK4 0x0100007f /* 127.0.0.1 in network order, read as a little-endian word */

ALWAYS_INLINE void target4(struct hw_target *target, u32 address, u32 port)
{
  *(u64 *)&target->address[0] = 0;
  *(u32 *)&target->address[8] = 0xffff0000; /* ::ffff:0:0, as IPv4 is matched everywhere */
  *(u32 *)&target->address[12] = address ? address : LOOPBACK4;
  target->is_any = !address;
  target->is_member = 0;
  target->port = port;
}

ALWAYS_INLINE void target6(struct hw_target *target, u32 a, u32 b, u32 c, u32 d, u32 port)
{
  u32 *to = (u32 *)target->address;
  target->is_any = !(a | b | d) && (!c || c == 0xffff0000);
  if (target->is_any)
    d = c ? LOOPBACK4 : 0x01000000; /* ::ffff:127.0.0.1, or ::1 */
  to[0] = a;
  to[1] = b;
  to[2] = c;
  to[3] = d;
  target->port = port;
  target->is_member = 0;
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
  *record = profile->record[action & 31];
  struct hw_net_key key = {.prefixlen = 160, .user = user_class(profile), .port = target->port};
  __builtin_memcpy(key.address, target->address, 16);
  struct hw_net_value *value = bpf_map_lookup_elem(net, &key);
  if (!value) {
    key.port = 0; /* every port that no entry names */
    key.any = 1;
    value = bpf_map_lookup_elem(net, &key);
  }
  if (!value) {
    weigh(ruling, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0)); /* the table always has a /0: it is broken, fails closed */
    return;
  }
  add_decision(ruling, &value->decisions[action == ACTION_SEND ? 1 : action == ACTION_LISTEN ? 2 : 0]);
}

/* describe_process for cgroup programs, which have no typed task before 6.18. */
ALWAYS_INLINE void describe_current(struct hw_event *event, struct hw_member *member)
{
  u64 address = bpf_get_current_task(), ids = bpf_get_current_pid_tgid();
  OPAQUE(address); /* or bcc takes it for a pointer of its own and rewrites inside the macros */
  struct task_struct *task = (struct task_struct *)address, *leader;
  READ(leader, task, group_leader);
  READ(event->start, leader, start_boottime);
  event->time = bpf_ktime_get_boot_ns();
  event->agent = member->agent;
  event->tgid = ids >> 32;
  event->tid = ids;
  event->forker = member->forker;
  event->forker_start = member->forker_start;
  event->uid = (u32)bpf_get_current_uid_gid();
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
  target->is_member = 1;
  struct hw_event event = {.kind = EVENT_ACTION, .tier = TIER_CGROUP, .action = action};
  struct hw_ruling ruling = {};
  u32 record = RECORD_ALL;
  event.generation = control->generation;
  decide_net(event.generation, agent->profile, target, action, &ruling, &record);
  describe_current(&event, member);
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

#define SOCK_STREAM 1
#define SOCK_DGRAM 2

/* Sockets whose traffic no hook above sees (raw, ping, UDP-Lite, SCTP, and MPTCP with its subflows): an agent whose
 * policies can deny a connection doesn't get one. Never allowed by silence. Hook: cgroup sock_create (inet only). */
ALWAYS_INLINE int judge_socket(u32 family, u32 type, u32 protocol)
{
  u32 tgid = bpf_get_current_pid_tgid() >> 32;
  struct hw_member *member = processes.lookup(&tgid);
  if (!member)
    return 1;
  if ((type == SOCK_STREAM && protocol == IPPROTO_TCP) || (type == SOCK_DGRAM && protocol == IPPROTO_UDP))
    return 1;
  struct hw_control *control = switchboard();
  struct hw_agent *agent = agent_of(member);
  if (!control || !agent || agent->id != member->agent)
    return 1; /* the agent is gone, and this process with it */
  struct hw_event event = {.kind = EVENT_ACTION, .tier = TIER_CGROUP, .action = ACTION_CONNECT};
  u32 index = table_index(control->generation, agent->profile);
  struct hw_profile *profile = profile_at(index);
  struct hw_ruling ruling = {};
  if (profile && !(profile->enforced & (1 << ACTION_CONNECT | 1 << ACTION_SEND)))
    return 1;
  weigh(&ruling, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
  describe_current(&event, member);
  event.accesses = 1 << ACTION_CONNECT;
  event.generation = control->generation;
  event.profile = agent->profile;
  event.record = profile ? profile->record[ACTION_CONNECT] : RECORD_ALL;
  event.object = family;
  event.port = protocol;
  event.flags = EVENT_FLAG_SOCKET | (control->armed ? 0 : EVENT_FLAG_DISARMED);
  describe_ruling(&event, &ruling);
  event.outcome = control->armed ? OUTCOME_PREVENTED : OUTCOME_OBSERVED;
  emit_net(&event);
  return !control->armed;
}
