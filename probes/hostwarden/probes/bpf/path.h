/* SPDX-License-Identifier: GPL-2.0-only
 * What a path means: rebuilt from the object (dentry chain up to its superblock's root), never from what was passed.
 * Maps: superblocks, magics. Three areas in scratch->text, each built from its end backwards:
 * [0, 4096) the path, [4096, 8192) argv (forwards), [12032, 16128) the second path; between them room for copying. */
#define AREA 4096
#define ARGV_AT 4096
#define SECOND_AT 12032 /* its end, too, is less than TEXT_AREA: a mask keeps it */
#define MAX_COMPONENTS 64
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define MNT_NS_INTERNAL ((u64)-22) /* fs/mount.h: a mount that no namespace shows */

/* LAYER: the file beneath an overlay's, which was judged as the overlay's already. PLAIN: nothing that has a path. */
enum hw_place { PLACED, PLACED_BY_CHAIN, PLACED_PRIVATE, PLACED_INTERNAL, PLACED_NOWHERE, PLACED_LAYER, PLACED_PLAIN };
#define HAS_PATH(place) ((place) < PLACED_INTERNAL)

struct hw_loop { struct hw_scratch *scratch; struct hw_profile *profile; };

/* One component, or one step from a mount's root to where it is mounted. */
int rebuild_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_walk *walk = &scratch->walk;
  u64 here = walk->dentry, up = 0;
  if (here == walk->top) { /* never without `mount`: top is 0 */
    u64 mount = walk->mount, above = 0, point = 0, top = 0;
    READ(above, (struct mount *)mount, mnt_parent);
    if (above == mount) {
      walk->ended = 1;
      return 1;
    }
    READ(point, (struct mount *)mount, mnt_mountpoint);
    READ(top, (struct mount *)above, mnt.mnt_root);
    walk->dentry = point;
    walk->mount = above;
    walk->top = top;
    return 0;
  }
  struct dentry *dentry = TYPED(dentry, here), *parent;
  LOAD(parent, dentry, d_parent);
  up = (u64)parent;
  if (up == here) {
    walk->ended = 2;
    return 1;
  }
  const unsigned char *name;
  u32 bytes = 0;
  LOAD(bytes, dentry, d_name.len);
  LOAD(name, dentry, d_name.name);
  u64 length = MASKED(bytes, 255);
  u32 written = walk->written + length + 1;
  walk->written = written;
  u64 base = MASKED(walk->base, SECOND_AT), offset = MASKED(AREA - written, AREA - 1);
  scratch->text[base + offset] = '/';
  bpf_probe_read_kernel(&scratch->text[base + offset + 1], length, name);
  walk->dentry = up;
  return 0;
}

/* Names from `dentry` up, written backwards into the area that starts at `base`. With `mount` the walk crosses mount
 * points up to the root of the mount tree, without it stops at the superblock's root. `at->length` becomes the path's
 * length, and `at->place` PLACED_NOWHERE if the walk didn't end at a root that is its superblock's (or the mount tree's),
 * after too many components, or with too many bytes. */
ALWAYS_INLINE void rebuild(struct hw_scratch *scratch, struct dentry *dentry, u64 mount, u32 base, struct hw_location *at)
{
  struct hw_walk *walk = &scratch->walk;
  u64 top = 0;
  if (mount)
    READ(top, (struct mount *)mount, mnt.mnt_root);
  walk->dentry = (u64)dentry;
  walk->mount = mount;
  walk->top = top;
  walk->base = base;
  walk->written = 0;
  walk->ended = 0;
  struct hw_loop loop = {.scratch = scratch};
  LOOP(MAX_COMPONENTS + 1, rebuild_turn, &loop);
  u32 ended = walk->ended, written = walk->written;
  if (ended == 2) {
    struct super_block *superblock;
    struct dentry *last = TYPED(dentry, walk->dentry), *root;
    LOAD(superblock, last, d_sb);
    LOAD(root, superblock, s_root);
    ended = (u64)root == walk->dentry && !mount; /* open_by_handle_at with a cold cache ends elsewhere */
  }
  if (!ended || written >= AREA) {
    at->place = PLACED_NOWHERE;
    written = written >= AREA ? 0 : written;
  }
  at->length = written;
  at->offset = AREA - written;
}

/* An action reads the generation once (into its event): superblocks, automata and inodes of two generations don't fit
 * together. What a swap leaves behind stays for longer than any program runs. */
ALWAYS_INLINE u32 bank(u32 generation) { return generation & 1; }

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

/* Pipes, sockets, memfd, anonymous inodes: no mount shows them, so their kind decides; their name is for people. */
ALWAYS_INLINE void name_internal(struct hw_scratch *scratch, struct dentry *dentry, u32 base, struct hw_location *at)
{
  const unsigned char *name;
  u32 bytes = 0;
  LOAD(bytes, dentry, d_name.len);
  LOAD(name, dentry, d_name.name);
  u64 length = MASKED(bytes, 255);
  at->offset = AREA - length;
  at->length = length;
  bpf_probe_read_kernel(&scratch->text[MASKED(base, SECOND_AT) + MASKED(AREA - length, AREA * 2 - 1)], length, name);
  at->place = PLACED_INTERNAL;
}

ALWAYS_INLINE void describe_inode(struct dentry *dentry, struct hw_location *at)
{
  struct inode *inode;
  u32 mode = 0;
  u16 bits = 0;
  LOAD(inode, dentry, d_inode);
  at->links = 1;
  at->inode = 0;
  at->rdev = 0;
  at->is_folder = 0;
  if (!inode)
    return; /* a name that is about to be created */
  LOAD(at->links, inode, i_nlink);
  LOAD(at->inode, inode, i_ino);
  LOAD(bits, inode, i_mode);
  mode = bits & S_IFMT;
  at->is_folder = mode == S_IFDIR;
  if (mode == S_IFBLK || mode == S_IFCHR)
    LOAD(at->rdev, inode, i_rdev);
}

/* An overlay that no host mount shows and that was mounted with the host's privileges can show, and change, any file under
 * a name of the agent's choice: refused whatever policies say. (One of an unprivileged user's shows what is his.) */
ALWAYS_INLINE int is_roots_overlay(struct super_block *superblock, u64 magic)
{
  struct user_namespace *owner = 0;
  int level = 0;
  if (magic != OVERLAYFS_SUPER_MAGIC)
    return 0;
  READ(owner, superblock, s_user_ns);
  READ(level, owner, level);
  return level == 0;
}

/* Is what stands at this address still the file system that the table means? */
ALWAYS_INLINE int is_known(struct hw_superblock_row *known, struct super_block *superblock, u32 dev)
{
  struct dentry *root;
  u64 magic = 0;
  if (!known)
    return 0;
  LOAD(root, superblock, s_root);
  LOAD(magic, superblock, s_magic);
  return known->dev == dev && known->root == (u64)root && known->magic == magic;
}

/* Which row of start states a path on this superblock is walked from. Sets `row`, `place`; returns the mount through which
 * the path has to be rebuilt, or 0. */
ALWAYS_INLINE u64 find_row(struct hw_scratch *scratch, struct hw_control *control, struct super_block *superblock, u64 mount,
                           u64 namespace, struct hw_location *at)
{
  struct hw_superblock_key key = {.address = (u64)superblock, .bank = bank(scratch->header.generation)};
  struct hw_superblock_row *known = superblocks.lookup(&key);
  if (is_known(known, superblock, at->dev)) {
    at->row = known->row;
    at->place = PLACED;
    return 0;
  }
  if (namespace && namespace == control->host_mnt_ns) {
    /* Mounted since the daemon last read mountinfo, in the host's own namespace: the mounts themselves say where. */
    at->row = ROW_HOST;
    at->place = PLACED_BY_CHAIN;
    return mount;
  }
  u64 magic = 0;
  LOAD(magic, superblock, s_magic);
  key.address = magic;
  u32 *row = magics.lookup(&key);
  at->is_forbidden = is_roots_overlay(superblock, magic);
  at->place = row && !at->is_forbidden ? PLACED_PRIVATE : PLACED_NOWHERE;
  at->row = row ? *row : 0;
  return 0;
}

/* `paths: root` in a policy: is this a file system of the agent's own container? The one that its root is on, or one that
 * the host's mounts don't show. What the host shares with it (volumes) keeps the host's names. */
ALWAYS_INLINE int is_containers(struct hw_scratch *scratch, struct super_block *superblock, u64 namespace, u32 dev)
{
  struct hw_profile *profile = profile_at(table_index(scratch->header.generation, scratch->header.profile));
  struct hw_superblock_key key = {.address = (u64)superblock, .bank = bank(scratch->header.generation)};
  struct mount *root = 0;
  struct super_block *of_root = 0;
  if (!profile || !profile->has_roots)
    return 0;
  READ(root, (struct mnt_namespace *)namespace, root);
  READ(of_root, root, mnt.mnt_sb);
  struct hw_superblock_row *known = superblocks.lookup(&key);
  if (!is_known(known, superblock, dev)) {
    u64 magic = 0;
    LOAD(magic, superblock, s_magic);
    return !is_roots_overlay(superblock, magic);
  }
  return of_root == superblock && known && known->row != profile->root_row;
}

/* Where an object is, and the row of start states that its path is walked from. A mount of 0: a hook that isn't told. */
int locate_asked(u64 raw)
{
  struct hw_scratch *scratch = (struct hw_scratch *)raw;
  struct hw_control *control = switchboard();
  u32 which = scratch->ask.which & 1, base = which ? SECOND_AT : 0;
  struct hw_location *at = &scratch->at[which];
  struct dentry *dentry = TYPED(dentry, scratch->ask.dentry);
  struct super_block *superblock;
  u64 mount = 0, namespace = 0, s_flags = 0;
  LOAD(superblock, dentry, d_sb);
  LOAD(at->dev, superblock, s_dev);
  LOAD(s_flags, superblock, s_flags);
  describe_inode(dentry, at);
  at->superblock = (u64)superblock;
  at->row = at->walked = at->length = at->offset = at->is_forbidden = 0;
  at->walked_row = ROW_PRIVATE;
  if (!control)
    return 0;
  if (scratch->ask.mount) {
    struct mnt_namespace *shown;
    mount = scratch->ask.mount - __builtin_offsetof(struct mount, mnt);
    struct mount *typed = TYPED(mount, mount);
    LOAD(shown, typed, mnt_ns);
    namespace = (u64)shown;
  }
  if (s_flags & (SB_KERNMOUNT | SB_NOUSER)) {
    name_internal(scratch, dentry, base, at);
    return 0;
  }
  if (namespace == MNT_NS_INTERNAL) {
    at->place = PLACED_LAYER;
    return 0;
  }
  u64 through = 0;
  if (namespace && namespace != control->host_mnt_ns && is_containers(scratch, superblock, namespace, at->dev)) {
    at->row = ROW_HOST;
    at->place = PLACED_BY_CHAIN;
    through = mount;
  } else {
    through = find_row(scratch, control, superblock, mount, namespace, at);
  }
  rebuild(scratch, dentry, through, base, at);
  if (HAS_PATH(at->place)) {
    at->walked = at->length;
    at->walked_row = at->row;
  }
  return 0;
}

ALWAYS_INLINE void locate(struct hw_scratch *scratch, struct dentry *dentry, struct vfsmount *mount, u32 which)
{
  scratch->ask.dentry = (u64)dentry;
  scratch->ask.mount = (u64)mount;
  scratch->ask.which = which;
  CALL(locate_asked, scratch);
}

/* A target that has no path: decided by rules without a condition, and `otherwise`. */
ALWAYS_INLINE void locate_nothing(struct hw_location *at)
{
  __builtin_memset(at, 0, sizeof(*at));
  at->place = PLACED_PLAIN;
  at->links = 1;
  at->offset = AREA;
  at->walked_row = ROW_PRIVATE;
}
