/* uring connect HOST PORT | sendto HOST PORT: the same as `net tcp` and `net sendto`, but asked of io_uring. Says how it
 * ended: ok or the name of the error. HOST is IPv4. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One entry, submitted and waited for. Returns its result. */
static int asked(struct io_uring_sqe *wanted)
{
  struct io_uring_params params = {0};
  int ring = syscall(SYS_io_uring_setup, 1, &params);
  if (ring < 0)
    return -errno;
  char *submitted = mmap(0, params.sq_off.array + 64, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  char *completed = mmap(0, params.cq_off.cqes + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe *entries = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  entries[0] = *wanted;
  ((unsigned *)(submitted + params.sq_off.array))[0] = 0;
  __atomic_store_n((unsigned *)(submitted + params.sq_off.tail), 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
    return -errno;
  return ((struct io_uring_cqe *)(completed + params.cq_off.cqes))[0].res;
}

int main(int argc, char **argv)
{
  struct io_uring_sqe wanted = {0};
  struct sockaddr_in to = {.sin_family = AF_INET};
  struct iovec bytes = {"leaving", 7};
  struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &bytes, .msg_iovlen = 1};
  if (argc != 4)
    return 2;
  inet_pton(AF_INET, argv[2], &to.sin_addr);
  to.sin_port = htons(atoi(argv[3]));
  int is_connect = !strcmp(argv[1], "connect");
  wanted.fd = socket(AF_INET, is_connect ? SOCK_STREAM : SOCK_DGRAM, 0);
  wanted.opcode = is_connect ? IORING_OP_CONNECT : IORING_OP_SENDMSG;
  wanted.addr = is_connect ? (unsigned long)&to : (unsigned long)&message;
  wanted.off = is_connect ? sizeof(to) : 0;
  wanted.len = is_connect ? 0 : 1;
  int result = asked(&wanted);
  const char *name = result < 0 ? strerrorname_np(-result) : "ok";
  puts(name ? name : "?");
  if (is_connect && result == 0 && write(wanted.fd, "leaving", 7) != 7)
    return 3;
  return result < 0;
}
