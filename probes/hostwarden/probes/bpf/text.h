/* SPDX-License-Identifier: GPL-2.0-only
 * Paths that a system call was given, where no hook shows the object (`signal` tier, after the fact): made absolute from
 * the real place of the folder that they start in, without `.`, `..` and empty components. A symbolic link in them isn't
 * followed, and another thread may have changed the text: doctor says so. */

#define AT_FDCWD (-100)
#define PATH_BYTES 3840 /* from ARGV_AT to the second path's area */

/* Takes the last component away. `offset`: where the text begins; `written`: its length. */
int shorten_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_walk *walk = &scratch->walk;
  u32 written = walk->written;
  if (!written)
    return 1;
  walk->written = written - 1;
  return scratch->text[MASKED(walk->base, SECOND_AT) + MASKED(written - 1, AREA - 1)] == '/';
}

/* The next byte of what was passed. `ended`: where the component that is being written begins, plus one. */
int text_turn(u64 turn)
{
  struct hw_loop *loop;
  CONTEXT(loop);
  struct hw_scratch *scratch = loop->scratch;
  struct hw_walk *walk = &scratch->walk;
  u64 base = MASKED(walk->base, SECOND_AT);
  u8 byte = turn < walk->n_jobs ? scratch->text[ARGV_AT + MASKED(turn, AREA - 1)] : 0;
  u32 written = walk->written, start = walk->ended;
  if (byte && byte != '/') {
    if (written >= AREA - 2) {
      walk->failed = 1;
      return 1;
    }
    if (!start) {
      scratch->text[base + MASKED(written, AREA - 1)] = '/';
      walk->ended = ++written;
    }
    scratch->text[base + MASKED(written, AREA - 1)] = byte;
    walk->written = written + 1;
    return 0;
  }
  if (start) { /* a component ends */
    u32 length = written - start;
    u8 first = scratch->text[base + MASKED(start, AREA - 1)], second = scratch->text[base + MASKED(start + 1, AREA - 1)];
    walk->ended = 0;
    if (first == '.' && (length == 1 || (length == 2 && second == '.'))) {
      walk->written = start - 1;
      struct hw_loop again = {.scratch = scratch};
      if (length == 2)
        LOOP(256, shorten_turn, &again);
    }
  }
  return !byte;
}

/* What `ask` names: a folder (dentry, mount) and the text at `ask.text`, into area `ask.which`. */
int locate_text(u64 raw)
{
  struct hw_scratch *scratch = (struct hw_scratch *)raw;
  u32 which = scratch->ask.which & 1, base = which ? SECOND_AT : 0;
  struct hw_location *at = &scratch->at[which];
  struct hw_walk *walk = &scratch->walk;
  CALL(locate_asked, scratch);
  at->links = 1;
  at->is_folder = 1; /* nobody knows: the stricter of both */
  if (!HAS_PATH(at->place))
    return 0;
  long read = bpf_probe_read_user_str(&scratch->text[ARGV_AT], PATH_BYTES, (void *)scratch->ask.text);
  u32 length = at->length;
  if (read <= 0 || read >= PATH_BYTES || length >= AREA / 2) {
    at->place = PLACED_NOWHERE;
    at->length = at->walked = 0;
    return 0;
  }
  length = MASKED(length, AREA / 2 - 1);
  if (length)
    bpf_probe_read_kernel(&scratch->text[base], length, &scratch->text[base + MASKED(at->offset, AREA - 1)]);
  walk->base = base;
  walk->written = length;
  walk->ended = walk->failed = 0;
  walk->n_jobs = read;
  struct hw_loop loop = {.scratch = scratch};
  LOOP(PATH_BYTES, text_turn, &loop);
  at->offset = 0;
  at->length = at->walked = walk->written;
  if (walk->failed)
    at->place = PLACED_NOWHERE;
  return 0;
}
