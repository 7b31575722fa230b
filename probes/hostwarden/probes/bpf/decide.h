/* SPDX-License-Identifier: GPL-2.0-only
 * From final states to a ruling, by the rule that policy/hostwarden/policy/tables.py states: the most severe wins, a
 * lower reason on equal severity (0, "nothing", is last); what is covered keeps `otherwise` away. */

/* In memory at every step (volatile): what clang would carry in registers, the verifier would follow value by value. */
ALWAYS_INLINE void weigh(volatile struct hw_ruling *ruling, u32 mode, u32 weight)
{
  if (mode == MODE_ENFORCE) {
    if (weight > ruling->enforced)
      ruling->enforced = weight;
  } else if (weight > ruling->observed) {
    ruling->observed = weight;
  }
}

ALWAYS_INLINE void add_decision(volatile struct hw_ruling *ruling, struct hw_decision *decision)
{
  weigh(ruling, MODE_ENFORCE, decision->enforced);
  weigh(ruling, MODE_OBSERVE, decision->observed);
  ruling->covered |= decision->covered;
}

/* What the final state of job `n` says about `action`. 1: the table is missing (fails closed). */
ALWAYS_INLINE int add_job_result(struct hw_scratch *scratch, volatile struct hw_ruling *ruling, u32 n, u32 action, u64 *joint)
{
  struct hw_job *job = &scratch->jobs[MASKED(n, 31)];
  struct hw_automaton *automaton = automaton_at(job->automaton);
  if (!automaton)
    return 1;
  u32 row = automaton->output[MASKED(job->state, MAX_STATES - 1)];
  u32 cell = MASKED(row * N_FILE_ACTIONS + (action & 3), MAX_DECISIONS * N_FILE_ACTIONS - 1);
  add_decision(ruling, &automaton->decisions[cell]);
  *joint |= automaton->joint[MASKED(row, MAX_DECISIONS - 1)];
  return 0;
}

/* Joint rules whose both halves matched. Branchless but for the weighing: see add_otherwise. */
ALWAYS_INLINE void add_joint(struct hw_profile *profile, volatile struct hw_ruling *ruling, u64 both)
{
  for (u32 i = 0; i < MAX_JOINT; i++) {
    struct hw_joint *joint = &profile->joint[i]; /* unused ones weigh nothing */
    u32 mask = -(u32)((both >> i) & 1);
    OPAQUE(mask);
    ruling->covered |= joint->covers & mask;
    weigh(ruling, joint->mode, joint->weight & mask);
  }
}

/* The lists are sorted: the first policy that isn't covered is the heaviest, so one branch a turn is enough. (With a
 * comparison of weights in the loop the verifier gave up on the number of branches.) */
ALWAYS_INLINE void add_otherwise_of(struct hw_profile *profile, volatile struct hw_ruling *ruling, u32 action, u32 mode)
{
  u32 list = (action & 3) * 2 + mode, n = profile->n_otherwise[list], covered = ruling->covered;
  for (u32 i = 0; i < MAX_POLICIES; i++) {
    OPAQUE(i);
    if (i >= n)
      break;
    struct hw_otherwise *otherwise = &profile->otherwise[list * MAX_POLICIES + i];
    if (!(otherwise->policy & covered)) {
      weigh(ruling, mode, otherwise->weight);
      break;
    }
  }
}

ALWAYS_INLINE void add_otherwise(struct hw_profile *profile, volatile struct hw_ruling *ruling, u32 action)
{
  add_otherwise_of(profile, ruling, action, MODE_ENFORCE);
  add_otherwise_of(profile, ruling, action, MODE_OBSERVE);
}

ALWAYS_INLINE u32 user_class(struct hw_profile *profile)
{
  u32 uid = (u32)bpf_get_current_uid_gid(), n = profile->n_users;
  for (u32 i = 0; i < 64; i++) {
    OPAQUE(i);
    if (i >= n)
      break;
    if (profile->uids[i] == uid)
      return profile->classes[i] & (MAX_USERS - 1);
  }
  return 0;
}

ALWAYS_INLINE u32 start_of(struct hw_profile *profile, u32 automaton, u32 row, u32 user)
{
  u32 cell = ((automaton & 15) * MAX_SUPERBLOCKS + (row & (MAX_SUPERBLOCKS - 1))) * MAX_USERS + (user & (MAX_USERS - 1));
  cell = MASKED(cell, STARTS - 1);
  return profile->starts[cell];
}

/* Jobs `first` and on: every path automaton of the profile over one path. There are n_paths(profile) of them. (It
 * doesn't return how many it added: the verifier would walk all that follows once for each possible count.) */
ALWAYS_INLINE void add_path_jobs(struct hw_scratch *scratch, struct hw_profile *profile, u32 index, u32 first,
                                 struct hw_location *at, u32 base, u32 user)
{
  u32 paths = profile->n_paths;
  for (u32 i = 0; i < MAX_AUTOMATA; i++) {
    OPAQUE(i);
    if (i >= paths)
      break;
    add_job(scratch, first + i, index * AUTOMATA_A_PROFILE + i, base + at->offset, at->walked, start_of(profile, i, at->walked_row, user));
  }
}
ALWAYS_INLINE u32 n_paths(struct hw_profile *profile) { return profile->n_paths & 15; }

/* A path that can't be rebuilt, or a table that is missing: denied where a policy of this agent could deny. */
ALWAYS_INLINE void refuse_unknown(struct hw_profile *profile, volatile struct hw_ruling *ruling, u32 action)
{
  if (!profile || profile->enforced & (1 << (action & 7)))
    weigh(ruling, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
}
