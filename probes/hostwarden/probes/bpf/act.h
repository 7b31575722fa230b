/* SPDX-License-Identifier: GPL-2.0-only
 * From a ruling to what happens on the `signal` tier: death, or nothing. */

/* Does this ruling end the process on a tier that can't deny? */
ALWAYS_INLINE int is_deadly(struct hw_control *control, struct hw_ruling *ruling)
{
  if (!control->armed)
    return 0;
  if (VERDICT_OF(ruling->enforced) >= VERDICT_FREEZE)
    return 1; /* FREEZE isn't in the language yet; if it came here it must not fall open */
  return VERDICT_OF(ruling->enforced) >= VERDICT_DENY && control->deny_is_kill;
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
  if (at->links == 0)
    event->flags |= EVENT_FLAG_DELETED;
  if (!control->armed)
    event->flags |= EVENT_FLAG_DISARMED;
  event->row = at->row;
  event->superblock_dev = at->dev;
  event->path_length = at->length;
}
