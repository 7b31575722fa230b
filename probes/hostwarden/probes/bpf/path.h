/* SPDX-License-Identifier: GPL-2.0-only
 * What a path means: rebuilt from the object (dentry chain up to its superblock's root), never from what was passed.
 * Maps: superblocks, magics, scratches. Three areas in scratch->text, each built from its end backwards:
 * [0, 4096) the path, [4096, 8192) argv (forwards), [12032, 16128) a script's path; between them room for copying. */
#define AREA 4096
#define ARGV_AT 4096
#define SCRIPT_AT 12032 /* its end, too, is less than TEXT_AREA: a mask keeps it */
#define MAX_COMPONENTS 64

enum hw_place { PLACED, PLACED_BY_CHAIN, PLACED_PRIVATE, PLACED_INTERNAL, PLACED_NOWHERE };

/* Names from `dentry` up, written backwards into the area that starts at `base`. With `mount` the walk crosses mount
 * points up to the root of the mount tree, without it stops at the superblock's root. Returns the offset in the area;
 * `at->length` is the path's, and `at->place` becomes PLACED_NOWHERE if the walk didn't end at a root that is its
 * superblock's (or the mount tree's), after too many components, or with too many bytes.
 * What is summed up lies in memory, where the verifier doesn't follow it. */
ALWAYS_INLINE void rebuild(struct hw_scratch *scratch, struct dentry *dentry, struct mount *mount, u64 base, struct hw_location *at)
{
  u64 length, turn = 0, start = 0;
  struct dentry *parent;
  const unsigned char *name;
  u32 bytes;
  volatile struct hw_walk *walk = &scratch->walk;
  walk->written = 0;
  walk->ended = 0;
  walk->offset = AREA;
  walk->mount = (u64)mount;
  if (mount)
    READ(start, mount, mnt.mnt_root);
  walk->top = start;
  do {
    if ((u64)dentry == walk->top) { /* never without `mount`: top is 0 */
      u64 here = walk->mount, above = 0, point = 0, top = 0;
      READ(above, (struct mount *)here, mnt_parent);
      if (above == here) {
        walk->ended = 1;
        break;
      }
      READ(point, (struct mount *)here, mnt_mountpoint);
      READ(top, (struct mount *)above, mnt.mnt_root);
      dentry = TYPED(dentry, point);
      walk->mount = above;
      walk->top = top;
    } else {
      LOAD(parent, dentry, d_parent);
      if (parent == dentry) {
        walk->ended = 2;
        break;
      }
      LOAD(bytes, dentry, d_name.len);
      LOAD(name, dentry, d_name.name);
      length = MASKED(bytes, 255);
      walk->written += length + 1;
      u64 offset = MASKED(walk->offset - length - 1, AREA - 1);
      walk->offset = offset;
      scratch->text[base + offset] = '/';
      bpf_probe_read_kernel(&scratch->text[base + offset + 1], length, name);
      dentry = parent;
    }
    turn++;
    OPAQUE(turn);
  } while (turn < MAX_COMPONENTS + 1);
  if (walk->ended == 2) {
    struct super_block *superblock;
    struct dentry *root;
    LOAD(superblock, dentry, d_sb);
    LOAD(root, superblock, s_root);
    walk->ended = root == dentry && !walk->mount; /* open_by_handle_at with a cold cache ends elsewhere */
  }
  u32 written = walk->written;
  if (!walk->ended || written >= AREA) {
    at->place = PLACED_NOWHERE;
    written = written >= AREA ? 0 : written;
  }
  at->length = written;
  at->offset = AREA - written;
}

/* An action reads the generation once (into its event): superblocks, automata and inodes of two generations don't fit
 * together. What a swap leaves behind stays for longer than any program runs. */
ALWAYS_INLINE u32 bank(u32 generation) { return generation & 1; }

/* Where `file` is, and the row of start states that its path is walked from. */
ALWAYS_INLINE void locate(struct hw_scratch *scratch, struct hw_control *control, struct file *file, u64 base, struct hw_location *at)
{
  struct dentry *dentry;
  struct inode *inode;
  struct super_block *superblock;
  struct vfsmount *vfsmount;
  struct mnt_namespace *namespace;
  struct mount *mount = 0;
  u64 magic, s_flags;
  LOAD(dentry, file, f_path.dentry);
  LOAD(vfsmount, file, f_path.mnt);
  LOAD(inode, dentry, d_inode);
  LOAD(superblock, dentry, d_sb);
  LOAD(at->dev, superblock, s_dev);
  LOAD(at->links, inode, i_nlink);
  LOAD(at->inode, inode, i_ino);
  at->superblock = (u64)superblock;
  at->row = 0;
  struct hw_superblock_key key = {.address = (u64)superblock, .bank = bank(scratch->header.generation)};
  struct hw_superblock_row *known = superblocks.lookup(&key);
  if (known && known->dev == at->dev) {
    at->row = known->row;
    at->place = PLACED;
  } else {
    LOAD(s_flags, superblock, s_flags);
    LOAD(magic, superblock, s_magic);
    READ(namespace, (struct mount *)((u64)vfsmount - __builtin_offsetof(struct mount, mnt)), mnt_ns);
    if (s_flags & (SB_KERNMOUNT | SB_NOUSER)) {
      /* pipes, sockets, memfd, anonymous inodes: no mount shows them, so their kind decides */
      const unsigned char *name;
      u32 bytes;
      LOAD(bytes, dentry, d_name.len);
      LOAD(name, dentry, d_name.name);
      u64 length = MASKED(bytes, 255);
      at->offset = AREA - length;
      at->length = length;
      bpf_probe_read_kernel(&scratch->text[base + MASKED(AREA - length, AREA * 2 - 1)], length, name);
      at->place = PLACED_INTERNAL;
      return;
    }
    if ((u64)namespace == control->host_mnt_ns) {
      /* Mounted since the daemon last read mountinfo, in the host's own namespace: the mounts themselves say where. */
      mount = (struct mount *)((u64)vfsmount - __builtin_offsetof(struct mount, mnt));
      at->row = ROW_HOST;
      at->place = PLACED_BY_CHAIN;
    } else {
      key.address = magic;
      u32 *row = magics.lookup(&key);
      at->place = row ? PLACED_PRIVATE : PLACED_NOWHERE;
      at->row = row ? *row : 0;
    }
  }
  rebuild(scratch, dentry, mount, base, at);
  at->walked = at->length;
  at->walked_row = at->row;
}
