/* SPDX-License-Identifier: GPL-2.0-only
 * One flat loop walks a list of jobs (this stretch of text through that automaton), up to sixteen bytes a turn: what a walk
 * costs doesn't depend on the number of rules, and the verifier sees one loop whatever is walked.
 * Maps: AUTOMATA, PROFILES (maps of maps). */

ALWAYS_INLINE u32 table_index(struct hw_control *control, u32 profile)
{
  return bank(control) * MAX_PROFILES + (profile & (MAX_PROFILES - 1));
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

#define STEP(n) \
  state = automaton->next[MASKED((state << shift) | automaton->classes[scratch->text[MASKED(offset + n, TEXT_AREA - 1)]], \
                                 MAX_TRANSITIONS - 1)];

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
      if (n >= n_jobs)
        return 0;
      struct hw_job *job = &scratch->jobs[n];
      automaton = automaton_at(job->automaton);
      if (!automaton)
        return 1;
      at->offset = job->offset;
      at->end = job->offset + job->length;
      at->state = job->state;
      at->shift = automaton->shift;
    } else if (offset + 16 <= end) {
      STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)
      STEP(8) STEP(9) STEP(10) STEP(11) STEP(12) STEP(13) STEP(14) STEP(15)
      at->state = state;
      at->offset = offset + 16;
    } else if (offset + 4 <= end) {
      STEP(0) STEP(1) STEP(2) STEP(3)
      at->state = state;
      at->offset = offset + 4;
    } else {
      STEP(0)
      at->state = state;
      at->offset = offset + 1;
    }
    turn++;
    OPAQUE(turn);
  } while (turn < turns);
  return 1;
}
