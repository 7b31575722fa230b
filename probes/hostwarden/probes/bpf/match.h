/* SPDX-License-Identifier: GPL-2.0-only
 * One flat loop walks a list of jobs (this stretch of text through that automaton), up to sixteen bytes a turn: what a walk
 * costs doesn't depend on the number of rules, and the verifier sees one loop whatever is walked.
 * Maps: AUTOMATA, PROFILES (maps of maps). */

ALWAYS_INLINE u32 table_index(u32 generation, u32 profile)
{
  return bank(generation) * MAX_PROFILES + (profile & (MAX_PROFILES - 1));
}

ALWAYS_INLINE struct hw_profile *profile_at(u32 index)
{
  u32 zero = 0;
  void *inner = bpf_map_lookup_elem(PROFILES, &index);
  return inner ? bpf_map_lookup_elem(inner, &zero) : 0;
}

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

/* Byte, class, next state. Written so that no address is worth a register of its own: what clang spills inside the loop
 * differs from turn to turn, and the verifier would follow every difference. */
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

/* 0: every job's final state is in its `state`. 1: a table was missing or the turns ran out: fails closed.
 *
 * Where the walk stands is kept in memory, of which the verifier knows nothing: what it knows of a register differs
 * from turn to turn and from branch to branch, and it would walk 1,000 turns once for every difference. */
ALWAYS_INLINE int walk(struct hw_scratch *scratch, u32 n_jobs, const int turns)
{
  u64 turn = 0;
  struct hw_automaton *automaton = 0;
  volatile struct hw_walk *at = &scratch->walk;
  at->n = 0;
  at->n_jobs = n_jobs; /* in memory, too: a register less, or clang spills what differs from turn to turn */
  at->offset = 0;
  at->end = 0;
  do {
    u64 offset = at->offset, end = at->end, state = at->state, shift = at->shift & 15;
    if (offset == end || !automaton) {
      u64 n = MASKED(at->n, 31);
      if (automaton) {
        scratch->jobs[n].state = state;
        n = MASKED(n + 1, 31);
        at->n = n;
      }
      if (n >= at->n_jobs)
        return 0;
      struct hw_job *job = &scratch->jobs[n];
      automaton = automaton_at(job->automaton);
      if (!automaton)
        return 1;
      at->offset = job->offset;
      at->end = job->offset + job->length;
      at->state = job->state;
      at->shift = automaton->shift;
    } else {
      u64 left = end - offset;
      if (left >= 16) {
        FOUR_STEPS FOUR_STEPS FOUR_STEPS FOUR_STEPS
      } else if (left >= 4) {
        FOUR_STEPS
      } else {
        STEP
      }
      at->state = state;
      at->offset = offset;
    }
    turn++;
    OPAQUE(turn);
  } while (turn < turns);
  return 1;
}
