/* SPDX-License-Identifier: GPL-2.0-only
 * Kernel, compiler and bcc quirks: one entry each, with the reason and where it was seen. */

/* bcc without kernel headers doesn't define it (headers.py). */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Every access to a struct of the kernel goes through one of these two. bcc's front end lays structs out for the host,
 * its back end for BPF, and the two disagree on the alignment of wide members: `mm->arg_start` compiled to an offset 16
 * bytes too far (6.18, LLVM 14) while offsetof, which the front end computes, was right. So the offset is always a number
 * by the time the back end sees it. GET is a plain load: for pointers whose type the verifier knows. */
#define GET(pointer, member) \
  (*(typeof((pointer)->member) *)((u64)(pointer) + __builtin_offsetof(typeof(*(pointer)), member)))
/* READ is for all others; the destination is zeroed by the helper when the address is bad. */
#define READ(destination, pointer, member) \
  bpf_probe_read_kernel(&(destination), sizeof(destination), \
                        (void *)((u64)(pointer) + __builtin_offsetof(typeof(*(pointer)), member)))

/* From 6.2 on the verifier can be told what a bare pointer points to (a kfunc, bound by the loader): its members are then
 * plain loads that a bad address turns into 0, ten times cheaper than the helper. LOAD is such a load where the kernel
 * can do it, else READ; it wants a pointer that came from TYPED, from an argument of the hook, or from another LOAD. */
#ifdef KFUNC_CAST
static void *(*bpf_rdonly_cast)(void *pointer, u32 type) = (void *)KFUNC_CAST;
#define TYPED(type, pointer) ((struct type *)bpf_rdonly_cast((void *)(pointer), BTF_##type))
#define LOAD(destination, pointer, member) ((destination) = GET(pointer, member))
#else
#define TYPED(type, pointer) ((struct type *)(pointer))
#define LOAD(destination, pointer, member) READ(destination, pointer, member)
#endif

/* A mask that clang can neither move nor fold away, so the verifier sees it right before the access (6.1, 6.12, 6.18). */
#define MASKED(value, mask) ({ u64 _value = (value); asm volatile("%0 &= %1" : "+r"(_value) : "i"(mask)); _value; })

/* 6.1 refuses a fall-through back edge, and clang turns counted loops into pointer loops that no verifier follows:
 * the counter of a long loop goes through this barrier. */
#define OPAQUE(variable) asm volatile("" : "+r"(variable))

/* A loop is a call of bpf_loop (5.17): the verifier looks at one turn, whatever their number. bcc can't point at a function,
 * so a number stands in for the callback, and the loader puts its code behind the program's (link.py). A callback has one
 * argument (bcc would rewrite a second); its context, which must lie on the caller's stack, comes in r2. It returns 1 to
 * end the loop. Whatever is carried from turn to turn lies in memory, of which the verifier knows nothing. */
#define CALLBACK(name) ((void *)((u64)CALLBACK_STAND_IN << 32 | CALLBACK_##name))
#define CONTEXT(variable) asm volatile("%0 = r2" : "=r"(variable)) /* first of all: the compiler may use r2 */
#define LOOP(turns, name, context) bpf_loop(turns, CALLBACK(name), context, 0)

/* A function that many programs call is compiled once and linked to each the same way. It has one argument (bcc would
 * rewrite others), a number to the front end, so that it leaves what is behind the pointer alone. */
#define CALL(name, argument) (((long (*)(void *))CALL_##name)(argument))

/* The value returned by an atomic add needs -mcpu=v3, which bcc 0.26 doesn't pass: only add, never fetch. */
#define ATOMIC_ADD(pointer, value) ((void)__sync_fetch_and_add((pointer), (value)))

/* A map made by the loader itself (maps of maps; their inner structs take bcc half a minute to digest). */
#define RAW_MAP(fd) ((void *)bpf_pseudo_fd(1, fd))

/* System call numbers and registers: x86-64 and, when TS_COMPAT is set, i386. x32 sets bit 30. */
#define TS_COMPAT 0x2
#define X32_BIT 0x40000000
#define SYSCALL_NUMBER(regs) GET(regs, orig_ax)

/* include/uapi/linux and include/linux constants that are macros, so they aren't in the BTF. */
/* FMODE_READ is bit 0, FMODE_WRITE bit 1, FMODE_CREATED bit 20 of f_mode (open.h) */
#define FMODE_EXEC 0x20
#define O_TRUNC 01000
#define SB_KERNMOUNT (1 << 22)
#define SB_NOUSER (1U << 31)
#define AF_INET 2
#define AF_INET6 10
#define SIGKILL 9
#define SIGSTOP 19
#define EPERM 1
/* Our structs are called hw_*: vmlinux.h has thousands of names, `location`, `event` and `key` among them. */
#define S_IFMT 00170000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFBLK 0060000
#define S_IFCHR 0020000
