/* SPDX-License-Identifier: GPL-2.0-only
 * What a program's bytes are: the kernel's own SHA-256 (bpf_ima_file_hash), which only sleepable LSM programs may ask for.
 * They note it for the task, and what judges the same file a moment later recalls it.
 * Hooks: bprm_check_security (sleepable), before the one that judges. Map: digests. */

#define IMA_SHA256 4 /* enum hash_algo: HASH_ALGO_SHA256 */

struct hw_digest { u64 inode; u64 superblock; u8 sha256[32]; };
struct hw_digests { struct hw_digest first; struct hw_digest last; }; /* of an exec: a script's, then its interpreter's */
BPF_TASK_STORAGE(digests, struct hw_digests);

ALWAYS_INLINE void recall_one(struct hw_scratch *scratch, u32 which, struct hw_digest *known)
{
  if (!known->superblock || known->inode != scratch->at[which].inode || known->superblock != scratch->at[which].superblock)
    return;
  __builtin_memcpy(scratch->sha256[which], known->sha256, 32);
  scratch->hash_known[which] = 1;
}

ALWAYS_INLINE void recall_hash(struct task_struct *task, struct hw_scratch *scratch)
{
  struct hw_digests *known = digests.task_storage_get(task, 0, 0);
  if (!known)
    return;
  recall_one(scratch, 0, &known->last);
  if (!scratch->actions[1])
    return;
  recall_one(scratch, 1, &known->first);
}
