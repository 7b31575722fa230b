/* SPDX-License-Identifier: GPL-2.0-only
 * From final states to a ruling, by the rule that policy/hostwarden/policy/tables.py states: the most severe wins, a
 * lower reason on equal severity (0, "nothing", is last); what is covered keeps `otherwise` away. Every tier decides here. */

ALWAYS_INLINE void weigh(struct hw_ruling *ruling, u32 mode, u32 weight)
{
  if (mode == MODE_ENFORCE) {
    if (weight > ruling->enforced)
      ruling->enforced = weight;
  } else if (weight > ruling->observed) {
    ruling->observed = weight;
  }
}

ALWAYS_INLINE void add_decision(struct hw_ruling *ruling, struct hw_decision *decision)
{
  weigh(ruling, MODE_ENFORCE, decision->enforced);
  weigh(ruling, MODE_OBSERVE, decision->observed);
  ruling->covered |= decision->covered;
}

ALWAYS_INLINE void add_cell(struct hw_ruling *ruling, struct hw_automaton *automaton, u32 state, u32 action)
{
  u32 row = automaton->output[MASKED(state, MAX_STATES - 1)] & (MAX_DECISIONS - 1);
  add_decision(ruling, &automaton->decisions[MASKED(row * N_COLUMNS + (action & (N_COLUMNS - 1)), MAX_DECISIONS * N_COLUMNS - 1)]);
}

/* What the final state of job `n` says about `action`. 1: the table is missing (fails closed). */
ALWAYS_INLINE int add_job_result(struct hw_scratch *scratch, struct hw_ruling *ruling, u32 n, u32 action, u64 *joint)
{
  struct hw_job *job = &scratch->jobs[MASKED(n, 31)];
  struct hw_automaton *automaton = automaton_at(job->automaton);
  if (!automaton)
    return 1;
  u32 state = job->state, row = automaton->output[MASKED(state, MAX_STATES - 1)] & (MAX_DECISIONS - 1);
  add_cell(ruling, automaton, state, action);
  *joint |= automaton->joint[MASKED(row, MAX_DECISIONS - 1)];
  return 0;
}

/* The next path automaton's part of the ruling; of another name of the file, the states are those that the compiler found. */
int result_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_rule *now = &scratch->rule;
  if (!now->other) {
    if (add_job_result(scratch, &scratch->ruling, now->first + turn, now->action, &now->by_path))
      now->failed = 1;
    return 0;
  }
  struct hw_automaton *automaton = automaton_at(scratch->index * AUTOMATA_A_PROFILE + turn);
  if (automaton)
    add_cell(&scratch->ruling, automaton, now->states[MASKED(turn, MAX_AUTOMATA - 1)], now->action);
  return 0;
}

/* The next joint rule all of whose halves matched. */
int joint_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  u64 matched = scratch->rule.matched >> (turn & 63);
  if (!matched)
    return 1;
  struct hw_joint *joint = &loop->profile->joint[MASKED(turn, MAX_JOINT - 1)];
  if (!(matched & 1) || !(joint->actions >> (scratch->rule.action & 31) & 1))
    return 0;
  scratch->ruling.covered |= joint->covers;
  weigh(&scratch->ruling, joint->mode, joint->weight);
  return 0;
}

/* The lists are sorted: the first policy that isn't covered is the heaviest. */
int otherwise_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  u32 list = MASKED(scratch->rule.list, N_COLUMNS * 2 - 1);
  struct hw_otherwise *otherwise = &loop->profile->otherwise[MASKED(list * MAX_POLICIES + turn, N_COLUMNS * 2 * MAX_POLICIES - 1)];
  if (otherwise->policy & scratch->ruling.covered)
    return 0;
  weigh(&scratch->ruling, list & 1, otherwise->weight);
  return 1;
}

ALWAYS_INLINE void add_otherwise_of(struct hw_loop *loop, u32 list)
{
  u32 n = loop->profile->n_otherwise[MASKED(list, N_COLUMNS * 2 - 1)];
  loop->scratch->rule.list = list;
  if (n)
    LOOP(n & (2 * MAX_POLICIES - 1), otherwise_turn, loop);
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

ALWAYS_INLINE u32 n_paths(struct hw_profile *profile) { return profile->n_paths & 15; }

/* Jobs `first` and on: every path automaton of the profile over one path. There are n_paths(profile) of them. */
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

/* A path that can't be rebuilt, or a table that is missing: denied where a policy of this agent could deny. */
ALWAYS_INLINE void refuse_unknown(struct hw_profile *profile, struct hw_ruling *ruling, u32 action)
{
  if (!profile || profile->enforced & (1 << (action & 31)))
    weigh(ruling, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
}

/* A file with several names: was one of them protected when the tables were made? Then that name's verdict counts. */
ALWAYS_INLINE void add_other_names(struct hw_loop *loop, struct hw_location *at)
{
  struct hw_scratch *scratch = loop->scratch;
  struct hw_inode_key key = {.superblock = at->superblock, .inode = at->inode, .profile = scratch->header.profile,
                             .bank = bank(scratch->header.generation)};
  struct hw_inode_row *row = inodes.lookup(&key);
  if (!row)
    return;
  u32 before = scratch->ruling.enforced, seen = scratch->ruling.observed;
  __builtin_memcpy(scratch->rule.states, row->state, sizeof(row->state));
  scratch->rule.other = 1;
  LOOP(scratch->paths & 15, result_turn, loop);
  if (scratch->ruling.enforced > before || scratch->ruling.observed > seen)
    scratch->ruling.is_linked = 1; /* weights: another reason counts, too */
}

#define ARGV_UNASKED 0 /* not exec, or not yet known: argv rules have no say */
#define ARGV_UNREAD 1  /* it can't be read, or is too long: the severest argv rule counts */
#define ARGV_READ 2

/* Joint rules ask for argv or for the content as well as for a path. */
ALWAYS_INLINE void add_conditions(struct hw_loop *loop, u32 action)
{
  struct hw_scratch *scratch = loop->scratch;
  struct hw_profile *profile = loop->profile;
  struct hw_ruling *ruling = &scratch->ruling;
  u32 which = scratch->rule.which & 1;
  u64 by_hash = 0;
  volatile u64 by_argv = 0;
  if (action == ACTION_EXEC && profile->has_argv) {
    u64 half = 0;
    if (scratch->argv_use == ARGV_UNREAD)
      add_decision(ruling, &profile->argv_unread);
    else if (scratch->argv_use == ARGV_READ && add_job_result(scratch, ruling, 2 * (scratch->paths & 15), ACTION_EXEC, &half))
      refuse_unknown(profile, ruling, ACTION_EXEC);
    by_argv = half;
  }
  if (profile->has_hashes && !scratch->hash_known[which]) {
    refuse_unknown(profile, ruling, action); /* rules ask for its content, and nobody can vouch for it */
  } else if (profile->has_hashes) {
    struct hw_hash_key key = {.bank = bank(scratch->header.generation), .profile = scratch->header.profile};
    __builtin_memcpy(key.sha256, scratch->sha256[which], 32);
    u64 *mask = hashes.lookup(&key);
    if (mask)
      by_hash = *mask;
  }
  scratch->rule.matched = scratch->rule.by_path & (by_argv | profile->joint_without_argv) & (by_hash | profile->joint_without_hash);
  if (scratch->rule.matched)
    LOOP(MAX_JOINT, joint_turn, loop);
}

ALWAYS_INLINE int is_program(u32 action) { return action == ACTION_EXEC || action == ACTION_LOAD; }

/* The ruling for one action on one of the two located objects, whose jobs have been walked. */
ALWAYS_INLINE void rule(struct hw_loop *loop, struct hw_location *at, u32 first, u32 action)
{
  struct hw_scratch *scratch = loop->scratch;
  struct hw_profile *profile = loop->profile;
  struct hw_ruling *ruling = &scratch->ruling;
  __builtin_memset(ruling, 0, sizeof(*ruling));
  if (at->place == PLACED_LAYER || (at->place == PLACED_INTERNAL && !is_program(action)))
    return; /* a pipe is nobody's rule; a layer was judged where it is seen */
  if (at->place == PLACED_NOWHERE) {
    refuse_unknown(at->is_forbidden ? 0 : profile, ruling, action);
    if (!is_program(action))
      return;
  }
  scratch->rule.first = first;
  scratch->rule.action = action;
  scratch->rule.by_path = 0;
  scratch->rule.failed = scratch->rule.other = 0;
  LOOP(scratch->paths & 15, result_turn, loop);
  if (scratch->rule.failed)
    refuse_unknown(profile, ruling, action);
  if (is_program(action)) {
    add_conditions(loop, action);
    /* memfd, deleted, unknown: walked from `@private` over no text, so rules for every path have spoken; but nothing
     * covers what has no name: `otherwise` decides as well */
    if (!HAS_PATH(at->place) || at->links == 0)
      ruling->covered = 0;
    if (scratch->argv_use == ARGV_UNASKED && action == ACTION_EXEC && profile->has_argv)
      ruling->covered = -1; /* an argv rule may yet allow it: `otherwise` waits until argv is known */
  }
  add_otherwise_of(loop, action * 2 + MODE_ENFORCE);
  add_otherwise_of(loop, action * 2 + MODE_OBSERVE);
  if (at->links > 1 && at->place == PLACED)
    add_other_names(loop, at);
}

ALWAYS_INLINE u32 severity(struct hw_ruling *ruling) { return VERDICT_OF(ruling->enforced) * 8 + VERDICT_OF(ruling->observed); }

ALWAYS_INLINE u32 number_of_bit(u32 bit)
{
  return (!!(bit & 0xaaaa)) | (!!(bit & 0xcccc)) << 1 | (!!(bit & 0xf0f0)) << 2 | (!!(bit & 0xff00)) << 3;
}

/* The next action that the attempt is, of the first object or the second. The most severe ruling is kept; of one action on
 * both (a script and its interpreter, both names of a rename), what is said of either counts. */
int rule_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_profile *profile = loop->profile;
  u32 which = !scratch->actions[0], left = scratch->actions[which];
  if (!left)
    return 1;
  scratch->actions[which] = left & (left - 1);
  u32 action = number_of_bit(left & -left);
  struct hw_ruling *ruling = &scratch->ruling;
  struct hw_loop again = {.scratch = scratch, .profile = profile};
  scratch->rule.which = which;
  rule(&again, &scratch->at[which], which * scratch->paths, action);
  if (profile->record[action & 31] > scratch->header.record)
    scratch->header.record = profile->record[action & 31];
  if (which && action == scratch->header.action) {
    weigh(&scratch->worst, MODE_ENFORCE, ruling->enforced);
    weigh(&scratch->worst, MODE_OBSERVE, ruling->observed);
    scratch->worst.is_linked |= ruling->is_linked;
  } else if (severity(ruling) >= severity(&scratch->worst)) {
    __builtin_memcpy(&scratch->worst, ruling, sizeof(*ruling));
    scratch->header.action = action;
  }
  return 0;
}

/* Judges what `scratch->actions` says of the objects in `scratch->at` (a second one only if it has actions). The most
 * severe ruling is in `scratch->worst`, its action in the event. */
int judge_located(u64 raw)
{
  struct hw_scratch *scratch = (struct hw_scratch *)raw;
  struct hw_event *event = &scratch->header;
  u32 index = table_index(event->generation, event->profile);
  struct hw_profile *profile = profile_at(index);
  event->accesses |= scratch->actions[0] | scratch->actions[1];
  if (!profile) { /* no table: fails closed */
    event->record = RECORD_ALL;
    event->action = number_of_bit(scratch->actions[0] & -scratch->actions[0]);
    refuse_unknown(0, &scratch->worst, 0);
    return 0;
  }
  u32 user = user_class(profile), paths = n_paths(profile), jobs = paths;
  scratch->index = index;
  scratch->paths = paths;
  add_path_jobs(scratch, profile, index, 0, &scratch->at[0], 0, user);
  if (scratch->actions[1] || scratch->has_second) {
    add_path_jobs(scratch, profile, index, paths, &scratch->at[1], SECOND_AT, user);
    jobs = 2 * paths;
  }
  if (scratch->argv_use == ARGV_READ) {
    if (jobs == paths) { /* without a second path its jobs walk nothing */
      scratch->at[1].walked = 0;
      add_path_jobs(scratch, profile, index, paths, &scratch->at[1], SECOND_AT, user);
    }
    jobs = 2 * paths;
    add_job(scratch, jobs, index * AUTOMATA_A_PROFILE + MAX_AUTOMATA, ARGV_AT, scratch->argv_walk, start_of(profile, MAX_AUTOMATA, 0, user));
    jobs += profile->has_argv & 1;
  }
  if (walk(scratch, jobs))
    scratch->at[0].place = scratch->at[1].place = PLACED_NOWHERE;
  struct hw_loop loop = {.scratch = scratch, .profile = profile};
  LOOP(2 * N_COLUMNS, rule_turn, &loop);
  return 0;
}

ALWAYS_INLINE void judge(struct hw_scratch *scratch) { CALL(judge_located, scratch); }

/* Do rules refuse reading or executing this very file? */
ALWAYS_INLINE u32 is_denied(struct hw_automaton *automaton, u32 state)
{
  u32 row = automaton->output[MASKED(state, MAX_STATES - 1)] & (MAX_DECISIONS - 1), denied = 0;
  u32 read = VERDICT_OF(automaton->decisions[MASKED(row * N_COLUMNS + ACTION_READ, MAX_DECISIONS * N_COLUMNS - 1)].enforced);
  u32 exec = VERDICT_OF(automaton->decisions[MASKED(row * N_COLUMNS + ACTION_EXEC, MAX_DECISIONS * N_COLUMNS - 1)].enforced);
  denied |= (read == VERDICT_HOLD || read >= VERDICT_DENY) | (exec == VERDICT_HOLD || exec >= VERDICT_DENY) << 1;
  return denied;
}

/* The state of what is below: a name tells nothing of files, but of a folder everything begins with its slash. */
ALWAYS_INLINE u32 below(struct hw_automaton *automaton, u32 state)
{
  u64 cell = (u64)state << (automaton->shift & 15) | automaton->classes['/'];
  return automaton->next[MASKED(cell, MAX_TRANSITIONS - 1)];
}

#define MOVES_FILE 0
#define MOVES_FOLDER 1
#define MOVES_SOMETHING 2 /* nobody knows which: only what is certain */

/* Would what rules say change by moving from place `from` (0 or 1) to the other? Of any object: it may not be read or
 * executed where it is, and may be where it comes. Of a folder: something below it can be refused, and is told apart by
 * rules from what is below the other. So a lock file is renamed without a question, whatever `**` denies somewhere. */
ALWAYS_INLINE int crosses_boundary(struct hw_scratch *scratch, u32 from, u32 kind)
{
  u32 paths = scratch->paths, freed = 0, denial = 0, other_denial = 0, differs = 0;
  for (u32 i = 0; i < MAX_AUTOMATA; i++) {
    OPAQUE(i);
    if (i >= paths)
      break;
    struct hw_job *before = &scratch->jobs[MASKED(i + (from ? paths : 0), 31)], *after = &scratch->jobs[MASKED(i + (from ? 0 : paths), 31)];
    struct hw_automaton *automaton = automaton_at(before->automaton);
    if (!automaton)
      return 1;
    u32 state = before->state, other = after->state;
    freed |= is_denied(automaton, state) & ~is_denied(automaton, other);
    denial |= automaton->output[MASKED(state, MAX_STATES - 1)] & DENIAL_BELOW;
    other_denial |= automaton->output[MASKED(other, MAX_STATES - 1)] & DENIAL_BELOW;
    differs |= below(automaton, state) ^ below(automaton, other);
  }
  if (freed)
    return 1;
  if (kind == MOVES_FOLDER)
    return denial && differs;
  return kind == MOVES_SOMETHING && denial && !other_denial;
}
