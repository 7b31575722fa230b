/* SPDX-License-Identifier: GPL-2.0-only
 * Sockets on the tiers that refuse: unix by the path of the peer's file or its abstract name, other families at their
 * creation, and listening. IPv4 and IPv6 connections are the cgroup programs' (net.h).
 * Hooks: unix_stream_connect, unix_may_send, socket_create, socket_listen. */

#define AF_UNIX 1
#define AF_NETLINK 16
#define AF_PACKET 17

/* The name of a unix socket: its file, or an abstract name, which is matched as `/./name` (no path has a component `.`). */
ALWAYS_INLINE void locate_unix(struct hw_scratch *scratch, struct sock *sock, struct hw_location *at)
{
  struct unix_sock *named = (struct unix_sock *)sock;
  struct dentry *dentry = 0;
  struct vfsmount *mount = 0;
  struct unix_address *address = 0;
  scratch->header.flags |= EVENT_FLAG_UNIX;
  READ(dentry, named, path.dentry);
  READ(mount, named, path.mnt);
  if (dentry) {
    locate(scratch, dentry, mount, 0);
    return;
  }
  locate_nothing(at);
  READ(address, named, addr);
  int length = 0;
  if (address)
    READ(length, address, len);
  u32 bytes = length > 3 ? length - 3 : 0; /* without the family and the leading NUL */
  if (!bytes)
    return; /* no name: a socket pair's */
  bytes = MASKED(bytes, 127);
  scratch->header.flags |= EVENT_FLAG_ABSTRACT;
  u64 from = MASKED(AREA - 128, AREA - 1);
  scratch->text[from] = '/';
  scratch->text[from + 1] = '.';
  scratch->text[from + 2] = '/';
  bpf_probe_read_kernel(&scratch->text[from + 3], bytes, (void *)((u64)address + __builtin_offsetof(struct unix_address, name) + 3));
  at->place = PLACED_PRIVATE;
  at->row = at->walked_row = ROW_HOST;
  at->offset = from;
  at->length = at->walked = bytes + 3;
}

ALWAYS_INLINE int judge_unix(struct sock *peer, u32 actions)
{
  struct hw_case it;
  int way = enter(&it, ACTION_CONNECT);
  if (way != JUDGE)
    return way;
  locate_unix(it.scratch, peer, &it.scratch->at[0]);
  it.scratch->actions[0] = actions;
  it.scratch->header.object = AF_UNIX;
  judge(it.scratch);
  return finish(&it);
}

/* A datagram to a peer that isn't the connected one, or connecting a datagram socket. */
ALWAYS_INLINE int judge_unix_datagram(struct socket *from, struct socket *to)
{
  struct sock *mine = GET(from, sk), *peer = GET(to, sk), *connected = 0;
  u64 number = system_call();
  if (!mine || !peer)
    return 0;
  READ(connected, (struct unix_sock *)mine, peer);
  if (connected == peer)
    return 0; /* judged when it was connected */
  if (number == 42 && !is_compat())
    return judge_unix(peer, 1 << ACTION_CONNECT);
  if ((number == 44 || number == 46 || number == 307) && !is_compat())
    return judge_unix(peer, 1 << ACTION_SEND);
  return judge_unix(peer, 1 << ACTION_CONNECT | 1 << ACTION_SEND); /* io_uring, 32 bit: it may be either */
}

/* A family whose addresses nobody here can read is decided where its sockets are made: never allowed by silence. */
ALWAYS_INLINE int judge_family(u32 family, u32 protocol, u32 is_kernels)
{
  if (is_kernels || family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK)
    return 0;
  struct hw_case it;
  int way = enter(&it, ACTION_CONNECT);
  if (way != JUDGE)
    return way;
  struct hw_scratch *scratch = it.scratch;
  scratch->header.flags |= EVENT_FLAG_SOCKET;
  scratch->header.port = protocol;
  scratch->header.object = family;
  locate_nothing(&scratch->at[0]);
  if (family == AF_PACKET)
    scratch->at[0].place = PLACED_NOWHERE; /* it reaches any address: refused where any can be refused */
  scratch->actions[0] = 1 << ACTION_CONNECT;
  judge(scratch);
  return finish(&it);
}

ALWAYS_INLINE void rule_on_listening(struct hw_case *it, struct sock *sock, u32 family)
{
  struct hw_target target = {};
  u16 port = 0;
  READ(port, sock, __sk_common.skc_num);
  if (family == AF_INET) {
    u32 address = 0;
    READ(address, sock, __sk_common.skc_rcv_saddr);
    *(u32 *)&target.address[8] = 0xffff0000;
    *(u32 *)&target.address[12] = address;
  } else {
    bpf_probe_read_kernel(target.address, 16, (void *)((u64)sock + __builtin_offsetof(struct sock, __sk_common.skc_v6_rcv_saddr)));
  }
  target.port = port;
  struct hw_event *event = &it->scratch->header;
  u32 record = RECORD_ALL;
  decide_net(event->generation, event->profile, &target, ACTION_LISTEN, &it->scratch->worst, &record);
  locate_nothing(&it->scratch->at[0]);
  it->scratch->at[0].place = PLACED; /* it has an address, no path */
  event->record = record;
  event->action = ACTION_LISTEN;
  event->accesses = 1 << ACTION_LISTEN;
  event->port = port;
  __builtin_memcpy(event->address, target.address, 16);
}

ALWAYS_INLINE int judge_listening(struct socket *socket)
{
  struct sock *sock = GET(socket, sk);
  u16 family = 0;
  struct hw_case it;
  if (!sock)
    return 0;
  int way = enter(&it, ACTION_LISTEN);
  if (way != JUDGE)
    return way;
  READ(family, sock, __sk_common.skc_family);
  if (family == AF_INET || family == AF_INET6)
{
    rule_on_listening(&it, sock, family);
    return finish(&it);
  }
  if (family != AF_UNIX) {
    it.scratch->header.flags |= EVENT_FLAG_SOCKET;
    return judge_plain(&it, ACTION_LISTEN, family, 0);
  }
  locate_unix(it.scratch, sock, &it.scratch->at[0]);
  it.scratch->actions[0] = 1 << ACTION_LISTEN;
  it.scratch->header.object = AF_UNIX;
  judge(it.scratch);
  return finish(&it);
}
