/* SPDX-License-Identifier: GPL-2.0-only
 * The daemon learns the addresses of superblocks by opening the host's mount points (O_PATH) under this hook.
 * Map: taught. */
ALWAYS_INLINE int learn(struct task_struct *task, struct file *file)
{
  if (!file)
    return 0;
  struct dentry *dentry;
  struct super_block *superblock;
  u32 number = 0;
  LOAD(dentry, file, f_path.dentry);
  LOAD(superblock, dentry, d_sb);
  LOAD(number, superblock, s_dev);
  u64 dev = number, address = (u64)superblock;
  taught.update(&dev, &address);
  struct hw_control *control = switchboard();
  if (control)
    control->host_mnt_ns = (u64)GET(GET(task, nsproxy), mnt_ns);
  return 0;
}
