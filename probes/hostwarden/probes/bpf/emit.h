/* SPDX-License-Identifier: GPL-2.0-only
 * One way from a decision to a ring. Every event is counted; a lost one is counted where it was lost. */

ALWAYS_INLINE void describe_process(struct hw_event *event, struct hw_member *member)
{
  struct task_struct *task = bpf_get_current_task_btf();
  u64 ids = bpf_get_current_pid_tgid();
  event->time = bpf_ktime_get_boot_ns();
  event->start = GET(GET(task, group_leader), start_boottime);
  event->agent = member->agent;
  event->tgid = ids >> 32;
  event->tid = ids;
  event->forker = member->forker;
  event->forker_start = member->forker_start;
  event->uid = (u32)bpf_get_current_uid_gid();
}

/* Memory for one action: taken from a pool, because a task's own would have to be allocated (20 kB, zeroed: 13 µs of
 * every spawn), and because it is bounded so. Pop and push are atomic: whoever runs has a slot of its own, also where a
 * program is preempted. 0: all are in use; the caller fails closed. */
ALWAYS_INLINE struct hw_scratch *take_scratch(u32 *slot)
{
  u32 taken = 0;
  if (bpf_map_pop_elem(FREE, &taken))
    return 0;
  *slot = taken;
  return pool.lookup(&taken);
}

ALWAYS_INLINE void give_scratch(u32 slot)
{
  u32 given = slot;
  bpf_map_push_elem(FREE, &given, 0);
}

ALWAYS_INLINE void begin_event(struct hw_scratch *scratch, struct hw_member *member, struct hw_agent *agent, struct hw_control *control, u32 tier)
{
  struct hw_event *event = &scratch->header;
  __builtin_memset(event, 0, sizeof(*event));
  __builtin_memset(&scratch->worst, 0, sizeof(scratch->worst));
  scratch->at[1].length = scratch->at[1].offset = scratch->at[1].row = 0;
  scratch->actions[0] = scratch->actions[1] = scratch->has_second = 0;
  scratch->argv = scratch->argv_walk = scratch->argv_use = 0;
  scratch->hash_known[0] = scratch->hash_known[1] = 0;
  describe_process(event, member);
  event->tier = tier;
  event->generation = control->generation;
  event->profile = agent->profile;
}

ALWAYS_INLINE int is_wanted(u32 record, u32 enforced, u32 observed)
{
  if (record == RECORD_ALL)
    return 1;
  return record == RECORD_DENIED && (enforced >= VERDICT_DENY || observed >= VERDICT_DENY);
}

/* 1: the event is to be sent. Counts it in any case. */
ALWAYS_INLINE int count_action(struct hw_event *event, struct hw_counts *sums)
{
  u32 action = event->action & 31;
  if (action >= N_ACTIONS)
    return 0;
  ATOMIC_ADD(&sums->seen[action], 1);
  if (event->outcome != OUTCOME_OBSERVED)
    ATOMIC_ADD(&sums->denied, 1);
  if (is_wanted(event->record, event->enforced, event->observed))
    return 1;
  ATOMIC_ADD(&sums->unrecorded[action], 1);
  return 0;
}

ALWAYS_INLINE void count_lost(struct hw_event *event, struct hw_counts *sums)
{
  u32 verdict = event->enforced > event->observed ? event->enforced : event->observed;
  u32 cell = (event->action & 31) * N_VERDICTS + verdict;
  if (cell < N_ACTIONS * N_VERDICTS)
    ATOMIC_ADD(&sums->lost[cell], 1);
}

/* An action that was refused without a record, for want of memory. */
ALWAYS_INLINE void count_blind(u32 agent_id, u32 action)
{
  struct hw_counts *sums = counts_of(agent_id);
  if (!sums || action >= N_ACTIONS)
    return;
  ATOMIC_ADD(&sums->seen[action], 1);
  ATOMIC_ADD(&sums->denied, 1);
  ATOMIC_ADD(&sums->lost[action * N_VERDICTS + VERDICT_DENY], 1);
}

ALWAYS_INLINE int is_urgent(struct hw_event *event)
{
  return event->enforced != VERDICT_ALLOW || event->observed != VERDICT_ALLOW || event->action == ACTION_CONNECT || event->action == ACTION_SEND;
}

/* Waking the daemon for every event of a flood would cost the agent more than all the rest: it looks by itself some
 * twenty times a second, and is woken when an eighth of the ring is full. */
ALWAYS_INLINE u64 flood_flags(void)
{
  return bpf_ringbuf_query(EVENTS, BPF_RB_AVAIL_DATA) > EVENTS_PAGES * 4096 / 8 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* `at` is where the text starts in `scratch->text` (the header is laid right before it), `length` its bytes. Not 0: lost. */
ALWAYS_INLINE long emit_text(struct hw_scratch *scratch, struct hw_event *event, u64 at, u64 length)
{
  u8 *start = scratch->event + MASKED(at, AREA * 2 - 1);
  __builtin_memcpy(start, event, sizeof(*event));
  length += sizeof(*event);
  OPAQUE(length);
  if (length > MAX_EVENT)
    length = MAX_EVENT;
  if (is_urgent(event))
    return bpf_ringbuf_output(DENIALS, start, length, 0);
  return bpf_ringbuf_output(EVENTS, start, length, flood_flags());
}

ALWAYS_INLINE void emit_action(struct hw_scratch *scratch, struct hw_event *event, u64 at, u64 length)
{
  struct hw_counts *sums = counts_of(event->agent);
  if (sums && count_action(event, sums) && emit_text(scratch, event, at, length))
    count_lost(event, sums);
}

ALWAYS_INLINE void emit_net(struct hw_event *event)
{
  struct hw_counts *sums = counts_of(event->agent);
  if (sums && count_action(event, sums) && bpf_ringbuf_output(DENIALS, event, sizeof(*event), 0))
    count_lost(event, sums);
}

ALWAYS_INLINE void emit_lifecycle(struct hw_event *event)
{
  if (bpf_ringbuf_output(EVENTS, event, sizeof(*event), flood_flags())) {
    struct hw_counts *sums = counts_of(event->agent);
    if (sums)
      ATOMIC_ADD(&sums->lost_lifecycle, 1);
  }
}
