/* SPDX-License-Identifier: GPL-2.0-only
 * The daemon learns the addresses of superblocks by opening the host's mount points (O_PATH) under sys_exit,
 * or by asking for their attributes under inode_getattr (attached only meanwhile).
 * Map: taught. */
ALWAYS_INLINE int learn_dentry(struct task_struct *task, struct dentry *dentry)
{
  struct super_block *superblock;
  u32 number = 0;
  LOAD(superblock, dentry, d_sb);
  LOAD(number, superblock, s_dev);
  u64 dev = number;
  struct dentry *root;
  u64 magic = 0;
  LOAD(root, superblock, s_root);
  LOAD(magic, superblock, s_magic);
  struct hw_taught known = {.address = (u64)superblock, .root = (u64)root, .magic = magic};
  taught.update(&dev, &known);
  struct hw_control *control = switchboard();
  if (control)
    control->host_mnt_ns = (u64)GET(GET(task, nsproxy), mnt_ns);
  return 0;
}

ALWAYS_INLINE int learn(struct task_struct *task, struct file *file)
{
  struct dentry *dentry;
  if (!file)
    return 0;
  LOAD(dentry, file, f_path.dentry);
  return learn_dentry(task, dentry);
}

/* Where no program stands at the end of system calls, the daemon asks for each mount point's attributes. */
ALWAYS_INLINE int learn_path(struct path *path)
{
  struct hw_member *member = membership();
  if (!member || !(member->flags & MEMBER_WARDEN))
    return 0;
  return learn_dentry(bpf_get_current_task_btf(), GET(path, dentry));
}
