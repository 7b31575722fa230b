/* SPDX-License-Identifier: GPL-2.0-only
 * A list of jobs (this stretch of text through that automaton) is walked, up to 64 bytes a turn: what a walk costs doesn't
 * depend on the number of rules.
 * Maps: AUTOMATA, PROFILES (maps of maps). */

ALWAYS_INLINE struct hw_automaton *automaton_at(u32 index)
{
  u32 zero = 0;
  void *inner = bpf_map_lookup_elem(AUTOMATA, &index);
  return inner ? bpf_map_lookup_elem(inner, &zero) : 0;
}

ALWAYS_INLINE void add_job(struct hw_scratch *scratch, u32 n, u32 automaton, u32 offset, u32 length, u32 state)
{
  struct hw_job *job = &scratch->jobs[MASKED(n, 31)];
  job->automaton = automaton;
  job->offset = offset;
  job->length = length;
  job->state = state;
}

/* Byte, class, next state. */
#define AT(base, index, member) ({ u8 *_at = (u8 *)(base) + (index); OPAQUE(_at); _at + __builtin_offsetof(typeof(*(base)), member); })
#define STEP \
  { \
    u64 _class = *AT(scratch, MASKED(offset, TEXT_AREA - 1), text); \
    _class = *AT(automaton, _class, classes); \
    _class = MASKED((state << shift) | _class, MAX_TRANSITIONS - 1); \
    state = *(u16 *)AT(automaton, _class * 2, next); \
    offset++; \
  }
#define FOUR_STEPS STEP STEP STEP STEP

int walk_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_walk *walk = &scratch->walk;
  u32 n = walk->n;
  if (n >= walk->n_jobs)
    return 1;
  struct hw_job *job = &scratch->jobs[MASKED(n, 31)];
  struct hw_automaton *automaton = automaton_at(job->automaton);
  if (!automaton) {
    walk->failed = 1;
    return 1;
  }
  u64 offset = job->offset, state = job->state, shift = automaton->shift & 15;
  volatile u32 *left = &job->length; /* read anew each time: what the verifier knew of it would be another path */
  for (u32 i = 0; i < 4; i++) {
    OPAQUE(i);
    if (*left >= 16) {
      FOUR_STEPS FOUR_STEPS FOUR_STEPS FOUR_STEPS
      *left -= 16;
    }
  }
  for (u32 i = 0; i < 3; i++) {
    OPAQUE(i);
    if (*left >= 4 && *left < 16) {
      FOUR_STEPS
      *left -= 4;
    }
  }
  for (u32 i = 0; i < 3; i++) {
    OPAQUE(i);
    if (*left && *left < 4) {
      STEP
      *left -= 1;
    }
  }
  job->offset = offset;
  job->state = state;
  if (!*left)
    walk->n = n + 1;
  return 0;
}

/* 0: every job's final state is in its `state`. 1: a table was missing: fails closed. */
ALWAYS_INLINE int walk(struct hw_scratch *scratch, u32 n_jobs)
{
  scratch->walk.n = 0;
  scratch->walk.n_jobs = n_jobs;
  scratch->walk.failed = 0;
  struct hw_loop loop = {.scratch = scratch};
  LOOP(MAX_JOBS * (AREA / 64 + 2), walk_turn, &loop);
  return scratch->walk.failed || scratch->walk.n < n_jobs;
}
