/* SPDX-License-Identifier: GPL-2.0-only
 * Every map, with its key and value. Sizes come from layout.py as -D flags; layouts are compared by a test. */

/* What a process is a member of. Twice: in task storage (can't fill up, knows no pid reuse) and by tgid, for sweeping,
 * for cgroup programs (which can't read task storage before 6.18), and as the proof that none is left. */
struct hw_member {
  u64 forker_start;  /* start of the process that forked it, ns since boot */
  u64 shared_files;  /* files_struct shared with another process (CLONE_FILES without CLONE_THREAD), or 0 */
  u32 agent;         /* slot, and incarnation above AGENT_SLOT_BITS */
  u32 forker;        /* tgid of the process that forked it: lineage that re-parenting can't erase */
  u32 flags;         /* MEMBER_* */
  u32 scratch;       /* while exec's programs run: the slot of the pool that they hand on, plus one */
};
#define MEMBER_DOOMED 1 /* dies at the next return to user space */
#define MEMBER_WARDEN 2 /* hostwardend's main thread: never judged, its opens teach (teach.h) */

BPF_TASK_STORAGE(members, struct hw_member);
BPF_HASH(processes, u32, struct hw_member, MAX_PROCESSES); /* tgid */

/* An agent by slot. The incarnation makes a used slot's old events tell themselves apart. */
struct hw_agent {
  u32 id;      /* slot | incarnation << AGENT_SLOT_BITS; 0: free */
  u32 profile; /* index into a bank of the tables below */
  u32 state;   /* AGENT_* */
  u32 pad;
};
#define AGENT_SLOT(id) ((id) & (MAX_AGENTS - 1))
#define AGENT_KILLED 1 /* killed by label and not released: whoever is or becomes a member dies */
#define AGENT_FROZEN 2 /* stopped until released: nothing of it is let through, and who tries is stopped */
BPF_ARRAY(agents, struct hw_agent, MAX_AGENTS);

/* What an agent did, in numbers: seen = recorded + lost + unrecorded, exactly. */
struct hw_counts {
  u64 seen[N_ACTIONS];
  u64 unrecorded[N_ACTIONS];
  u64 lost[N_ACTIONS * N_VERDICTS]; /* [action * N_VERDICTS + verdict] */
  u64 lost_lifecycle;               /* forks, exits, new members: lineage may have gaps */
  u64 denied;                       /* actions refused or killed */
};
BPF_ARRAY(counts, struct hw_counts, MAX_AGENTS);

/* One switchboard. `generation` chooses the bank of tables (bit 0): its update is the policy swap. */
struct hw_control {
  u64 host_mnt_ns;      /* the daemon's mount namespace, by address */
  u32 generation;
  u32 armed;            /* 0: decide and record, change nothing */
  u32 deny_is_kill;     /* on tiers that can't deny: 1 kill, 0 audit */
  u32 selectors;        /* 1: execs of non-members are looked at */
  u32 shown;            /* argv bytes copied into a record */
  u32 warden;           /* hostwardend's tgid: agents can't signal, trace or tune it */
  u64 capabilities;     /* mask of those that no agent has, root or not */
};
BPF_ARRAY(control, struct hw_control, 1);

/* Not 0 while somebody has a debt that is settled at the next return to user space, whatever the system call. */
BPF_ARRAY(gate, u64, 1);

/* Descriptor tables in which a refused file was opened while others shared them. files_struct → agent. */
BPF_HASH(doomed_files, u64, u32, 1024);
struct hw_sharer { u64 files; u64 tgid; };
BPF_HASH(sharers, struct hw_sharer, u32, MAX_SHARERS); /* → agent */

/* Where a superblock stands in the host's mount table: which row of start states. Per bank. */
struct hw_superblock_key { u64 address; u64 bank; };
/* An address is used again as soon as it is free, and so is an anonymous device number: its root and kind tell a
 * file system from one that was there before. */
struct hw_superblock_row { u64 root; u64 magic; u32 row; u32 dev; };
BPF_HASH(superblocks, struct hw_superblock_key, struct hw_superblock_row, MAX_SUPERBLOCKS * 2);
/* A file system that no host mount shows, by s_magic: the row it is judged by (a fresh procfs is /proc). Per bank. */
BPF_HASH(magics, struct hw_superblock_key, u32, 128);
struct hw_taught { u64 address; u64 root; u64 magic; };
BPF_HASH(taught, u64, struct hw_taught, MAX_SUPERBLOCKS * 4); /* by s_dev */

/* Protected files that have other names (hard links): their verdicts as the compiler computed them. */
struct hw_inode_key { u64 superblock; u64 inode; u32 profile; u32 bank; };
struct hw_inode_row { u16 state[MAX_AUTOMATA]; };
BPF_HASH(inodes, struct hw_inode_key, struct hw_inode_row, MAX_INODES);

/* Non-members that become members at exec: by cgroup name (systemd unit), or by the reason of the selector profile. */
struct hw_unit_name { char name[64]; };
BPF_HASH(units, struct hw_unit_name, u32, 1024);
BPF_ARRAY(selected, u32, MAX_AGENTS);

/* Maps of maps, made by the loader: index = bank * MAX_PROFILES + profile (automata: that * AUTOMATA_A_PROFILE + n). */
#define PROFILES RAW_MAP(FD_PROFILES)
#define AUTOMATA RAW_MAP(FD_AUTOMATA)
#define NETS RAW_MAP(FD_NETS)

/* A weight is verdict << 16 | (0xffff - reason), or verdict << 16 where no reason is known: the larger of two is the more
 * severe, and on equal severity the lower reason, as tables.py states it. One comparison, one word. */
#define WEIGHT(verdict, reason) ((verdict) << 16 | ((reason) ? 0xffff - (reason) : 0))
#define VERDICT_OF(weight) ((weight) >> 16)
#define REASON_OF(weight) ((weight) & 0xffff ? 0xffff - ((weight) & 0xffff) : 0)
struct hw_decision { u32 enforced; u32 observed; u32 covered; u32 pad; }; /* weights, and a mask of policies */
/* What is walked stands first: a constant offset of more than 32,767 bytes would take a register in the loop. */
struct hw_automaton {
  u32 shift;
  u32 pad;
  u8 classes[256];
  u16 next[MAX_TRANSITIONS];
  u16 output[MAX_STATES]; /* row of decisions, and DENIAL_BELOW */
  u64 joint[MAX_DECISIONS];
  struct hw_decision decisions[MAX_DECISIONS * N_COLUMNS];
};
#define DENIAL_BELOW 0x8000 /* something below a path that ends in this state can be refused */
#define STARTS (16 * MAX_SUPERBLOCKS * MAX_USERS) /* 16, not nine: a power of two is a mask */
struct hw_otherwise { u32 weight; u32 policy; }; /* the policy, as a mask */
struct hw_joint { u32 weight; u32 mode; u32 covers; u32 actions; };
struct hw_profile {
  u64 joint_without_argv; /* joint rules that ask for no argv, and for no hash */
  u64 joint_without_hash;
  u32 n_paths;
  u32 has_argv;
  u32 enforced;                /* bit per action */
  u32 n_users;
  u32 n_joint;
  u32 has_hashes;
  u32 has_roots;               /* a policy says `paths: root` */
  u32 root_row;                /* the host's root file system */
  u32 n_otherwise[N_COLUMNS * 2]; /* [action * 2 + mode] */
  u8 record[32];               /* by action */
  struct hw_decision argv_unread;
  u32 uids[64];
  u8 classes[64];
  struct hw_otherwise otherwise[N_COLUMNS * 2 * MAX_POLICIES]; /* each list by weight, heaviest first */
  struct hw_joint joint[MAX_JOINT];
  u16 starts[STARTS]; /* [automaton][row][user] */
};
/* Programs named by their content: which joint rules' hash half a digest is. */
struct hw_hash_key { u32 bank; u32 profile; u8 sha256[32]; };
BPF_HASH(hashes, struct hw_hash_key, u64, MAX_HASHES);

struct hw_net_key { u32 prefixlen; u8 user; u8 any; u16 port; u8 address[16]; }; /* any: every port that no entry names */
struct hw_net_value { struct hw_decision decisions[3]; }; /* connect, send, listen */

/* Two rings: what must not be lost, and the flood. Made by the loader: bcc 0.26 has no word for asking how full one is. */
#define DENIALS RAW_MAP(FD_DENIALS)
#define EVENTS RAW_MAP(FD_EVENTS)

/* Where an object is (path.h). */
struct hw_location {
  u64 inode;
  u64 superblock;
  u32 offset; u32 length; u32 row; u32 place; u32 dev; u32 links; u32 rdev; u32 is_folder; u32 is_forbidden; u32 pad;
  u32 walked; u32 walked_row; /* what of it is matched: all, or nothing where it has no name (path.h) */
};

/* Memory for one action, never per CPU: under full preemption another task would write into it (kernel-facts: 40 of
 * 307,000). */
struct hw_job { u32 automaton; u32 offset; u32 length; u32 state; };
struct hw_walk { u64 dentry; u64 mount; u64 top; u32 base; u32 written; u32 ended; u32 n; u32 n_jobs; u32 failed; };
/* What locate_asked() is asked for. */
struct hw_ask { u64 dentry; u64 mount; u64 text; u32 which; u32 refused; };
/* Where rule() stands: which jobs, which action, which list; what the halves of joint rules matched so far. */
struct hw_rule { u64 by_path; u64 matched; u32 first; u32 action; u32 list; u32 failed; u32 other; u32 which; u16 states[MAX_AUTOMATA]; };
struct hw_ruling { u32 enforced; u32 observed; u32 covered; u32 is_linked; };
struct hw_scratch {
  struct hw_event header;     /* filled here, then laid before the text */
  struct hw_location at[2];   /* what is acted on; a script's file, a new name */
  u32 actions[2];             /* what the attempt is of each: bit per action */
  u32 has_second;             /* the second is walked, whether it is judged or only compared */
  struct hw_ruling worst, ruling;
  struct hw_job jobs[32];     /* MAX_JOBS, and up to a power of two for masks */
  struct hw_walk walk;
  struct hw_ask ask;
  struct hw_rule rule;
  u32 index;                  /* of the profile's tables */
  u32 paths;                  /* its automata */
  u32 argv;                   /* bytes of it that were read */
  u32 argv_walk;              /* bytes of it that are matched */
  u32 argv_use;               /* ARGV_* */
  u32 hash_known[2];          /* of each object's content */
  u8 sha256[2][32];
  u8 event[EVENT_HEADER];
  u8 text[TEXT_AREA];   /* path, second path, argv: three areas, see path.h */
  u8 slack[2048];
};
BPF_ARRAY(pool, struct hw_scratch, SCRATCHES);
#define FREE RAW_MAP(FD_FREE) /* a stack of the pool's free slots, filled by the loader */
