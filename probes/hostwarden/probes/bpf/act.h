/* SPDX-License-Identifier: GPL-2.0-only
 * From a ruling to what happens. On tiers that refuse: -EPERM before any effect. On `signal`: death, or nothing. */

ALWAYS_INLINE int asks_for_refusal(struct hw_ruling *ruling)
{
  u32 verdict = VERDICT_OF(ruling->enforced);
  return verdict == VERDICT_HOLD || verdict >= VERDICT_DENY; /* a hold that can't be made is a denial */
}

/* Is this ruling's action refused, where it can be? */
ALWAYS_INLINE int is_refusal(struct hw_control *control, struct hw_ruling *ruling)
{
  return control->armed && asks_for_refusal(ruling);
}

/* Does this ruling end the process on a tier that can't deny? */
ALWAYS_INLINE int is_deadly(struct hw_control *control, struct hw_ruling *ruling)
{
  if (!is_refusal(control, ruling))
    return 0;
  return VERDICT_OF(ruling->enforced) > VERDICT_DENY || control->deny_is_kill;
}

ALWAYS_INLINE void describe_ruling(struct hw_event *event, struct hw_ruling *ruling)
{
  event->enforced = VERDICT_OF(ruling->enforced);
  event->enforced_reason = REASON_OF(ruling->enforced);
  event->observed = VERDICT_OF(ruling->observed);
  event->observed_reason = REASON_OF(ruling->observed);
}

ALWAYS_INLINE void describe_location(struct hw_event *event, struct hw_location *at, struct hw_control *control)
{
  if (at->place == PLACED_NOWHERE)
    event->flags |= EVENT_FLAG_UNKNOWN;
  if (at->place == PLACED_INTERNAL)
    event->flags |= EVENT_FLAG_INTERNAL;
  if (at->place == PLACED_PRIVATE && at->row == ROW_PRIVATE)
    event->flags |= EVENT_FLAG_PRIVATE;
  if (at->place == PLACED_BY_CHAIN)
    event->flags |= EVENT_FLAG_CHAIN;
  if (at->place == PLACED_PLAIN)
    event->flags |= EVENT_FLAG_PLAIN;
  if (at->links == 0)
    event->flags |= EVENT_FLAG_DELETED;
  if (!control->armed)
    event->flags |= EVENT_FLAG_DISARMED;
  event->row = at->row;
  event->superblock_dev = at->dev;
  event->path_length = at->length;
}

/* Path, what may be shown of argv, the second path: one stretch of memory. Returns its length. */
ALWAYS_INLINE u32 lay_out(struct hw_scratch *scratch, struct hw_event *event, struct hw_control *control, u32 argv)
{
  u32 shown = control->shown & (AREA / 2 - 1);
  if (argv > shown) {
    argv = shown;
    event->flags |= EVENT_FLAG_ARGV_CUT;
  }
  event->argv_length = argv;
  u32 second = MASKED(scratch->at[1].length, AREA - 1), end = scratch->at[0].offset + scratch->at[0].length + argv;
  event->script_length = second;
  event->script_row = scratch->at[1].row;
  if (second)
    bpf_probe_read_kernel(&scratch->text[MASKED(end, AREA * 2 - 1)], second,
                          &scratch->text[SECOND_AT + MASKED(scratch->at[1].offset, AREA - 1)]);
  return scratch->at[0].length + argv + second;
}

/* What a judged attempt comes to on a tier that refuses: its record, and `ask.refused` if the caller must get EPERM. */
int conclude_judged(u64 raw)
{
  struct hw_scratch *scratch = (struct hw_scratch *)raw;
  struct hw_event *event = &scratch->header;
  struct hw_control *control = switchboard();
  struct hw_member *member = membership();
  scratch->ask.refused = 1;
  if (!control || !member)
    return 0;
  struct hw_agent *agent = agent_of(member);
  describe_ruling(event, &scratch->worst);
  describe_location(event, &scratch->at[0], control);
  if (scratch->worst.is_linked)
    event->flags |= EVENT_FLAG_LINKED;
  int refused = is_refusal(control, &scratch->worst);
  if (refused) {
    event->outcome = OUTCOME_PREVENTED;
    if (event->enforced == VERDICT_KILL) {
      event->outcome = OUTCOME_KILLED_BEFORE_EFFECT;
      end_process(member);
    } else if (event->enforced == VERDICT_FREEZE && agent) {
      stop_agent(agent);
    }
  }
  scratch->ask.refused = refused;
  emit_action(scratch, event, scratch->at[0].offset, lay_out(scratch, event, control, scratch->argv));
  return 0;
}

/* 1: the caller gets EPERM. */
ALWAYS_INLINE int conclude(struct hw_scratch *scratch)
{
  CALL(conclude_judged, scratch);
  return scratch->ask.refused;
}
