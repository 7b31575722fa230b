/* SPDX-License-Identifier: GPL-2.0-only
 * Who becomes a member by what it executes or where it runs (agents.d): exe globs and systemd units. Before the new
 * program's first instruction, so nothing of it runs unbound. Hook: sched_process_exec, before exec.h.
 * Maps: units, selected, the selector profile's tables. */

ALWAYS_INLINE u32 agent_by_unit(struct task_struct *task)
{
  struct cgroup *cgroup = GET(GET(task, cgroups), dfl_cgrp), *ancestor;
  struct kernfs_node *node;
  char *name;
  for (int i = 1; i < 12; i++) {
    struct hw_unit_name unit = {};
    if (i > GET(cgroup, level))
      break;
    READ(ancestor, cgroup, ancestors[i]);
    if (!ancestor)
      break;
    READ(node, ancestor, kn);
    READ(name, node, name);
    bpf_probe_read_kernel_str(unit.name, sizeof(unit.name), name);
    u32 *agent = units.lookup(&unit);
    if (agent && *agent)
      return *agent;
  }
  return 0;
}

ALWAYS_INLINE u32 reason_by_exe(struct hw_control *control, struct file *file, struct hw_scratch *scratch)
{
  scratch->header.generation = control->generation;
  u32 index = table_index(scratch->header.generation, PROFILE_SELECTORS);
  struct hw_profile *profile = profile_at(index);
  struct hw_location *at = &scratch->at[0];
  struct hw_ruling *ruling = &scratch->ruling;
  if (!profile)
    return 0;
  __builtin_memset(ruling, 0, sizeof(*ruling));
  locate_file(scratch, file, 0);
  if (!HAS_PATH(at->place))
    return 0;
  add_path_jobs(scratch, profile, index, 0, at, 0, 0);
  u32 jobs = n_paths(profile);
  if (walk(scratch, jobs))
    return 0;
  u64 joint = 0;
  for (u32 i = 0; i < MAX_AUTOMATA; i++) {
    OPAQUE(i);
    if (i >= jobs)
      break;
    add_job_result(scratch, ruling, i, ACTION_EXEC, &joint);
  }
  return REASON_OF(ruling->enforced);
}

ALWAYS_INLINE u32 agent_by_exe(struct hw_control *control, struct file *file)
{
  u32 slot = 0;
  struct hw_scratch *scratch = take_scratch(&slot);
  if (!scratch)
    return 0; /* open: a process that no selector could be asked about stays what it is, no agent */
  u32 reason = reason_by_exe(control, file, scratch);
  give_scratch(slot);
  u32 *agent = selected.lookup(&reason);
  return reason && agent ? *agent : 0;
}

ALWAYS_INLINE int select_agent(struct task_struct *task, struct linux_binprm *bprm)
{
  struct hw_control *control = switchboard();
  u32 tgid = GET(task, tgid);
  if (!control || !control->selectors || membership() || processes.lookup(&tgid))
    return 0;
  if (tgid == 1)
    return 0; /* never adopted */
  u32 id = agent_by_unit(task);
  if (!id)
    id = agent_by_exe(control, GET(bprm, file));
  if (!id)
    return 0;
  struct hw_member member = {.agent = id, .forker = GET(GET(task, real_parent), tgid), .forker_start = GET(GET(task, real_parent), start_boottime)};
  struct hw_member *stored = members.task_storage_get(task, &member, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (!stored || processes.update(&tgid, &member)) {
    bpf_send_signal(SIGKILL); /* fails closed: an agent that can't be marked must not run */
    return 0;
  }
  struct hw_event event = {.kind = EVENT_JOIN};
  describe_process(&event, &member);
  emit_lifecycle(&event);
  return 0;
}
