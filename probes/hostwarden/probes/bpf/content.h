/* SPDX-License-Identifier: GPL-2.0-only
 * What a program's bytes are: the kernel's own SHA-256 (bpf_ima_file_hash), which only sleepable LSM programs may ask for.
 * They note it for the task, and what judges the same file a moment later recalls it.
 * Hooks: bprm_check_security (sleepable), before the one that judges. Map: digests. */

#define IMA_SHA256 4 /* enum hash_algo: HASH_ALGO_SHA256 */

struct hw_digest { u64 inode; u64 superblock; u8 sha256[32]; };
BPF_TASK_STORAGE(digests, struct hw_digest);

ALWAYS_INLINE void recall_hash(struct task_struct *task, struct hw_scratch *scratch)
{
  struct hw_digest *known = digests.task_storage_get(task, 0, 0);
  if (!known || known->inode != scratch->at[0].inode || known->superblock != scratch->at[0].superblock)
    return;
  __builtin_memcpy(scratch->sha256, known->sha256, 32);
  scratch->hash_known = 1;
}
