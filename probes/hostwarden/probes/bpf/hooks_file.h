/* SPDX-License-Identifier: GPL-2.0-only
 * Files on the tiers that refuse: open, receive, map, change, create, delete, rename, link. Hooks: file_*, mmap_file,
 * path_*, inode_setxattr, inode_removexattr. */

#define PROT_EXEC 4
#define RENAME_EXCHANGE 2
#define MAJOR(device) ((device) >> 20)
#define MINOR(device) ((device) & 0xfffff)
#define PROC_SUPER_MAGIC 0x9fa0
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270

/* The file beneath an overlay's: before 6.5 it has the overlay's path and another inode. */
ALWAYS_INLINE int is_layer(struct file *file, struct dentry *dentry)
{
  struct inode *opened, *named;
  LOAD(opened, file, f_inode);
  LOAD(named, dentry, d_inode);
  return opened != named;
}

ALWAYS_INLINE u32 accesses_of(struct file *file)
{
  u32 mode = 0;
  LOAD(mode, file, f_mode);
  return (mode & 1) << ACTION_READ | ((mode >> 1) & 1) << ACTION_WRITE | ((mode >> 20) & 1) << ACTION_CREATE;
}

/* What is read or written below file systems: whole disks, memory, ports, SCSI commands. Under whatever name. */
ALWAYS_INLINE int is_raw_device(struct dentry *dentry)
{
  struct inode *inode;
  u16 mode = 0;
  u32 device = 0;
  LOAD(inode, dentry, d_inode);
  LOAD(mode, inode, i_mode);
  if ((mode & S_IFMT) == S_IFBLK)
    return 1;
  if ((mode & S_IFMT) != S_IFCHR)
    return 0;
  LOAD(device, inode, i_rdev);
  return MAJOR(device) == 21 || (MAJOR(device) == 1 && (MINOR(device) == 1 || MINOR(device) == 2 || MINOR(device) == 4));
}

/* File systems whose files are switches of the whole kernel: debugfs, tracefs, securityfs, configfs, binfmt_misc, efivarfs,
 * bpffs. Whoever mounts one of his own has the same. */
ALWAYS_INLINE int is_kernels_own(u64 magic)
{
  return magic == 0x64626720 || magic == 0x74726163 || magic == 0x73636673 || magic == 0x62656570 || magic == 0x42494e4d
         || magic == 0xde5e81e4 || magic == 0xcafe4a11;
}

/* What is written to of the kernel's own file systems, whatever it is called: control groups (who writes there can stop,
 * starve or move the warden), and the warden's own files in a procfs. */
ALWAYS_INLINE u32 written_reach(struct dentry *dentry, u32 warden)
{
  struct super_block *superblock;
  struct inode *inode;
  u64 magic = 0;
  LOAD(superblock, dentry, d_sb);
  LOAD(magic, superblock, s_magic);
  if (magic == CGROUP2_SUPER_MAGIC || magic == CGROUP_SUPER_MAGIC)
    return KERNEL_CGROUP;
  if (is_kernels_own(magic))
    return KERNEL_OTHER;
  if (magic != PROC_SUPER_MAGIC || !warden)
    return 0;
  LOAD(inode, dentry, d_inode);
  struct proc_inode *entry = (struct proc_inode *)((u64)inode - __builtin_offsetof(struct proc_inode, vfs_inode));
  struct pid *pid = 0;
  u64 link = 0;
  u32 tgid = 0;
  READ(pid, entry, pid);
  READ(link, pid, tasks[0].first); /* of any of its threads */
  if (link)
    READ(tgid, (struct task_struct *)(link - __builtin_offsetof(struct task_struct, pid_links)), tgid);
  return tgid == warden ? KERNEL_WARDEN : 0;
}

ALWAYS_INLINE int judge_file(struct file *file, u32 accesses, int is_received)
{
  struct dentry *dentry;
  struct vfsmount *mount;
  struct hw_case it;
  if (!accesses)
    return 0;
  int way = enter(&it, ACTION_READ);
  if (way != JUDGE)
    return way;
  LOAD(dentry, file, f_path.dentry);
  LOAD(mount, file, f_path.mnt);
  struct hw_location *at = &it.scratch->at[0];
  locate(it.scratch, dentry, mount, 0);
  if (at->place == PLACED_LAYER || is_layer(file, dentry) || (is_received && at->place == PLACED_INTERNAL)) {
    give_scratch(it.slot);
    return 0;
  }
  it.scratch->actions[0] = accesses;
  judge(it.scratch);
  u32 reached = is_raw_device(dentry) ? KERNEL_DEVICE : accesses & (1 << ACTION_WRITE) ? written_reach(dentry, it.control->warden) : 0;
  if (reached && VERDICT_OF(it.scratch->worst.enforced) < VERDICT_DENY) {
    it.scratch->header.action = ACTION_KERNEL;
    it.scratch->header.record = RECORD_ALL;
    it.scratch->header.detail = reached;
    weigh(&it.scratch->worst, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
  }
  return finish(&it);
}

ALWAYS_INLINE int judge_opening(struct file *file)
{
  u32 flags = 0;
  LOAD(flags, file, f_flags);
  if (flags & FMODE_EXEC)
    return 0; /* exec's own open: judged as a program (hooks_exec.h) */
  return judge_file(file, accesses_of(file), 0);
}

/* Code that is mapped. The program itself was judged when it was executed. `is_hashed`: its content was, just now. */
ALWAYS_INLINE int judge_mapping(struct file *file, u64 protection, int is_hashed)
{
  struct dentry *dentry;
  struct vfsmount *mount;
  struct mm_struct *mm = GET(bpf_get_current_task_btf(), mm);
  if (!file || !(protection & PROT_EXEC))
    return 0;
  if (mm && (u64)GET(mm, exe_file) == (u64)file)
    return 0;
  LOAD(dentry, file, f_path.dentry);
  LOAD(mount, file, f_path.mnt);
  if (is_layer(file, dentry))
    return 0;
  struct hw_case it;
  int way = enter(&it, ACTION_LOAD);
  if (way != JUDGE)
    return way;
  locate(it.scratch, dentry, mount, 0);
  if (it.scratch->at[0].place == PLACED_LAYER) {
    give_scratch(it.slot);
    return 0;
  }
  if (is_hashed)
    recall_hash(bpf_get_current_task_btf(), it.scratch);
  it.scratch->actions[0] = 1 << ACTION_LOAD;
  judge(it.scratch);
  return finish(&it);
}

ALWAYS_INLINE int judge_protection(struct vm_area_struct *area, u64 protection)
{
  struct file *file = GET(area, vm_file);
  return judge_mapping(file, protection, 0);
}

ALWAYS_INLINE int judge_path(struct path *path, u32 actions)
{
  return judge_one(GET(path, dentry), GET(path, mnt), actions);
}

ALWAYS_INLINE int judge_entry(struct path *folder, struct dentry *dentry, u32 actions)
{
  return judge_one(dentry, GET(folder, mnt), actions);
}

/* An open that creates is recorded as one attempt, by file_open; here it is refused where nothing has been made yet. */
ALWAYS_INLINE int judge_making(struct path *folder, struct dentry *dentry, u32 mode)
{
  u64 number = system_call();
  int is_open = (mode & S_IFMT) == S_IFREG && number != 133 && number != 259 && !is_compat();
  struct hw_case it;
  int way = enter(&it, ACTION_CREATE);
  if (way != JUDGE)
    return way;
  locate(it.scratch, dentry, GET(folder, mnt), 0);
  if (it.scratch->at[0].place == PLACED_LAYER) {
    give_scratch(it.slot);
    return 0;
  }
  it.scratch->actions[0] = 1 << ACTION_CREATE;
  judge(it.scratch);
  if (is_open && !is_refusal(it.control, &it.scratch->worst)) {
    give_scratch(it.slot);
    return 0;
  }
  return finish(&it);
}

/* truncate(2) by path; ftruncate wants a descriptor that was opened for writing, and O_TRUNC was judged with its open. */
ALWAYS_INLINE int judge_truncation(struct path *path)
{
  u64 number = system_call();
  if (is_compat() ? number != 92 && number != 193 : number != 76)
    return 0;
  return judge_path(path, 1 << ACTION_WRITE);
}

/* Two names at once. `old` is judged for `actions`, `fresh` for `others`; `swapped`: each becomes the other's. */
ALWAYS_INLINE int judge_two(struct dentry *old, struct vfsmount *old_mount, u32 actions, struct dentry *fresh,
                            struct vfsmount *fresh_mount, u32 others, int swapped)
{
  struct hw_case it;
  int way = enter(&it, number_of_bit(actions & -actions));
  if (way != JUDGE)
    return way;
  struct hw_scratch *scratch = it.scratch;
  locate(scratch, old, old_mount, 0);
  locate(scratch, fresh, fresh_mount, 1);
  if (scratch->at[0].place == PLACED_LAYER) {
    give_scratch(it.slot);
    return 0;
  }
  scratch->actions[0] = actions;
  scratch->actions[1] = others;
  judge(scratch);
  int crosses = crosses_boundary(scratch, 0, scratch->at[0].is_folder ? MOVES_FOLDER : MOVES_FILE);
  if (swapped)
    crosses |= crosses_boundary(scratch, 1, scratch->at[1].is_folder ? MOVES_FOLDER : MOVES_FILE);
  if (crosses && !asks_for_refusal(&scratch->worst)) {
    scratch->header.action = ACTION_RENAME;
    weigh(&scratch->worst, MODE_ENFORCE, WEIGHT(VERDICT_DENY, 0));
  }
  return finish(&it);
}

/* utime and its relatives; what else sets attributes has a hook with a path (mode, owner, size), or happens by itself. */
ALWAYS_INLINE int judge_times(struct dentry *dentry)
{
  u64 number = system_call();
  if (is_compat() ? number != 30 && number != 271 && number != 299 && number != 320 && number != 412
                  : number != 132 && number != 235 && number != 261 && number != 280)
    return 0;
  return judge_one(dentry, 0, 1 << ACTION_WRITE);
}
