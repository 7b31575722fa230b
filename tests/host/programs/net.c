/* net WAY HOST PORT [HOST2 PORT2]: one attempt to get the bytes "leaving" to HOST:PORT. Says on stdout what each step came to,
 * one word a step: ok or the name of the error. A HOST with a colon is IPv6. WAY:
 * tcp udp udplite mptcp (connect, then send); sendto sendmsg udplite-sendto (addressed); sendmmsg (first to HOST, second to
 * HOST2); elsewhere (connected to HOST, sent to HOST2); tfo (sendto with MSG_FASTOPEN); tfo-connect; bound (bound to HOST2,
 * then connected to HOST), bound-sendto; reconnect (to HOST, then HOST2); thread, vfork (tcp, there). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#define LEAVING "leaving"
#define LENGTH (sizeof(LEAVING) - 1)

typedef struct { struct sockaddr_storage address; socklen_t length; } Peer;
static Peer peer, other;

static Peer peer_of(const char *host, const char *port)
{
  Peer found = {.length = sizeof(struct sockaddr_in)};
  struct sockaddr_in *v4 = (void *)&found.address;
  struct sockaddr_in6 *v6 = (void *)&found.address;
  if (strchr(host, ':')) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(atoi(port));
    inet_pton(AF_INET6, host, &v6->sin6_addr);
    found.length = sizeof(*v6);
  } else {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(atoi(port));
    inet_pton(AF_INET, host, &v4->sin_addr);
  }
  return found;
}

/* Says how a step ended; true if it went well. */
static int said(long result)
{
  const char *name = result < 0 ? strerrorname_np(errno) : "ok";
  char line[64];
  int length = snprintf(line, sizeof(line), "%s\n", name ? name : "?");
  return write(1, line, length) == length && result >= 0;
}

static int open_socket(int type, int protocol)
{
  struct timeval patience = {10, 0};
  int fd = socket(peer.address.ss_family, type, protocol);
  if (fd < 0) {
    said(fd);
    exit(6);
  }
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return fd;
}

static int to(int fd, Peer *whom) { return connect(fd, (void *)&whom->address, whom->length); }
static ssize_t addressed(int fd, Peer *whom, int flags)
{
  return sendto(fd, LEAVING, LENGTH, flags, (void *)&whom->address, whom->length);
}

static int by_connect(int fd) { return said(to(fd, &peer)) && said(send(fd, LEAVING, LENGTH, MSG_NOSIGNAL)) ? 0 : 1; }
static int by_sendto(int fd) { return said(addressed(fd, &peer, MSG_NOSIGNAL)) ? 0 : 1; }

static int by_sendmsg(int fd)
{
  struct iovec bytes = {LEAVING, LENGTH};
  struct msghdr message = {.msg_name = &peer.address, .msg_namelen = peer.length, .msg_iov = &bytes, .msg_iovlen = 1};
  return said(sendmsg(fd, &message, 0)) ? 0 : 1;
}

static int by_sendmmsg(int fd)
{
  struct iovec bytes = {LEAVING, LENGTH};
  struct mmsghdr two[2] = {
    {.msg_hdr = {.msg_name = &peer.address, .msg_namelen = peer.length, .msg_iov = &bytes, .msg_iovlen = 1}},
    {.msg_hdr = {.msg_name = &other.address, .msg_namelen = other.length, .msg_iov = &bytes, .msg_iovlen = 1}},
  };
  int sent = sendmmsg(fd, two, 2, 0);
  if (sent == 1) /* the kernel tells the second one's error only to who sends it again */
    said(sendmmsg(fd, two + 1, 1, 0));
  else
    said(sent);
  return sent;
}

static int by_fastopen_connect(int fd)
{
  int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)))
    return 6;
  return by_connect(fd);
}

static void *in_thread(void *unused) { return (void *)(long)by_connect(open_socket(SOCK_STREAM, 0)); }

static int by_thread(void)
{
  pthread_t thread;
  void *result = (void *)6L;
  pthread_create(&thread, 0, in_thread, 0);
  pthread_join(thread, &result);
  return (long)result;
}

static int by_vfork(void)
{
  int status;
  pid_t pid = vfork();
  if (pid == 0)
    _exit(by_connect(open_socket(SOCK_STREAM, 0)));
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int bound(int fd) { return said(bind(fd, (void *)&other.address, other.length)) ? fd : -1; }

int main(int argc, char **argv)
{
  if (argc < 4)
    return 2;
  const char *way = argv[1];
  peer = peer_of(argv[2], argv[3]);
  if (argc > 5)
    other = peer_of(argv[4], argv[5]);
  if (!strcmp(way, "tcp")) return by_connect(open_socket(SOCK_STREAM, 0));
  if (!strcmp(way, "udp")) return by_connect(open_socket(SOCK_DGRAM, 0));
  if (!strcmp(way, "udplite")) return by_connect(open_socket(SOCK_DGRAM, IPPROTO_UDPLITE));
  if (!strcmp(way, "mptcp")) return by_connect(open_socket(SOCK_STREAM, IPPROTO_MPTCP));
  if (!strcmp(way, "sendto")) return by_sendto(open_socket(SOCK_DGRAM, 0));
  if (!strcmp(way, "udplite-sendto")) return by_sendto(open_socket(SOCK_DGRAM, IPPROTO_UDPLITE));
  if (!strcmp(way, "sendmsg")) return by_sendmsg(open_socket(SOCK_DGRAM, 0));
  if (!strcmp(way, "sendmmsg")) return by_sendmmsg(open_socket(SOCK_DGRAM, 0));
  if (!strcmp(way, "tfo")) return said(addressed(open_socket(SOCK_STREAM, 0), &peer, MSG_FASTOPEN)) ? 0 : 1;
  if (!strcmp(way, "tfo-connect")) return by_fastopen_connect(open_socket(SOCK_STREAM, 0));
  if (!strcmp(way, "bound")) return by_connect(bound(open_socket(SOCK_STREAM, 0)));
  if (!strcmp(way, "bound-sendto")) return by_sendto(bound(open_socket(SOCK_DGRAM, 0)));
  if (!strcmp(way, "thread")) return by_thread();
  if (!strcmp(way, "vfork")) return by_vfork();
  int fd = open_socket(SOCK_DGRAM, 0);
  said(to(fd, &peer));
  if (!strcmp(way, "elsewhere")) return said(addressed(fd, &other, 0)) ? 0 : 1;
  if (!strcmp(way, "reconnect")) return said(to(fd, &other)) && said(send(fd, LEAVING, LENGTH, 0)) ? 0 : 1;
  return 2;
}
