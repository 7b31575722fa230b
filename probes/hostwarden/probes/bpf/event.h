/* SPDX-License-Identifier: GPL-2.0-only
 * What travels through the rings: this header, then `path_length` bytes of path (from the superblock's root up),
 * `argv_length` bytes of argv (NUL-separated), `script_length` bytes of a script's path. events.py unpacks it; a test
 * compares both layouts. */
struct hw_event {
  u64 time;            /* ns since boot, sleep included */
  u64 start;           /* the process's start, ns since boot */
  u64 forker_start;
  u32 agent;
  u32 tgid;
  u32 tid;
  u32 forker;          /* tgid of the process that forked this one */
  u32 uid;             /* real user id */
  u32 generation;      /* of the tables that decided: reasons are indices into them */
  u32 argv_total;      /* bytes of argv before it was cut */
  u32 superblock_dev;
  u32 object;          /* ptrace, signal: the other's tgid; a socket's family; a capability */
  u32 detail;          /* signal's number; ptrace's mode; CLONE_NEW* flags; KERNEL_* */
  u16 kind;            /* EVENT_* */
  u16 profile;
  u16 enforced_reason;
  u16 observed_reason;
  u16 row;             /* of start states: which superblock the paths are relative to */
  u16 script_row;      /* of the second path */
  u16 path_length;
  u16 argv_length;
  u16 script_length;   /* of the second path: a script's, or the new name of a rename or link */
  u16 port;
  u16 flags;           /* EVENT_FLAG_* */
  u16 accesses;        /* bit per action that this one attempt was (an open for reading and writing: both) */
  u8 action;
  u8 enforced;         /* verdict */
  u8 observed;         /* verdict of observing policies */
  u8 outcome;
  u8 tier;
  u8 record;           /* RECORD_* in force for the action */
  u8 status;           /* exit: signal that ended it */
  u8 pad;
  u8 address[16];
};

#define EVENT_ACTION 0
#define EVENT_FORK 1  /* a member forked: tgid is the child */
#define EVENT_EXIT 2  /* the last thread of a member left */
#define EVENT_JOIN 3  /* a non-member became a member at exec (selectors) */
#define EVENT_SHARED 4 /* a refused file was opened into a table that others share: `start` holds files_struct */
#define EVENT_EXEC 5   /* an exec that isn't recorded: only who runs what */

#define EVENT_FLAG_ARGV_CUT 1      /* argv is longer than what is shown */
#define EVENT_FLAG_ARGV_UNREAD 2   /* argv couldn't be read, or is longer than what is matched */
#define EVENT_FLAG_UNKNOWN 4       /* no host path: unknown file system, too deep, too long, disconnected */
#define EVENT_FLAG_INTERNAL 8      /* pipe, socket, memfd, anonymous inode */
#define EVENT_FLAG_PRIVATE 16      /* a file system of memory that no host mount shows */
#define EVENT_FLAG_SHARED 32       /* the descriptor table is shared */
#define EVENT_FLAG_DISARMED 64     /* hostwarden was disarmed: nothing was enforced */
#define EVENT_FLAG_DELETED 128     /* the file has no name any more */
#define EVENT_FLAG_LINKED 256      /* another name of a protected file (hard link) decided */
#define EVENT_FLAG_CHAIN 512       /* the path was walked through the mounts: it is already a host path */
#define EVENT_FLAG_SOCKET 2048     /* a kind of socket that no hook sees: `port` is its protocol */
#define EVENT_FLAG_THREADS 1024    /* other threads of the process share the table */
#define EVENT_FLAG_UNIX 4096       /* a unix socket: the path is its file's */
#define EVENT_FLAG_ABSTRACT 8192   /* the path is an abstract socket's name */
#define EVENT_FLAG_PLAIN 16384     /* nothing with a path or an address */

/* What of the kernel's own an agent reached for (`detail` of ACTION_KERNEL). */
enum hw_reach { KERNEL_BPF = 1, KERNEL_MODULE, KERNEL_KEXEC, KERNEL_PERF, KERNEL_TIME, KERNEL_TTY, KERNEL_DEVICE, KERNEL_WARDEN, KERNEL_CGROUP, KERNEL_OTHER };
