/* every COUNTERS SECRET FOLDER PORT PROGRAM: every millisecond one try of everything that is denied, for at most fifteen
 * minutes: SECRET opened, FOLDER/file unlinked, FOLDER/new made, a connection to PORT on 127.0.0.1, PROGRAM executed (which
 * counts itself, if it ever runs: mark.c). COUNTERS is a file of eight u64 that is mapped: tries, successes, …; the last
 * one ends the loop when it isn't 0. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIES, SUCCESSES, STOP = 7 };
static volatile unsigned long *count;

static void came_to(int is_success)
{
  if (is_success)
    __atomic_add_fetch(&count[SUCCESSES], 1, __ATOMIC_SEQ_CST);
}

static int opens(const char *path, int flags)
{
  int fd = open(path, flags, 0600);
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}

static int connects(const struct sockaddr_in *peer)
{
  int fd = socket(AF_INET, SOCK_STREAM, 0), result = connect(fd, (const struct sockaddr *)peer, sizeof(*peer));
  close(fd);
  return result == 0;
}

int main(int argc, char **argv)
{
  char old[4096], fresh[4096];
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (argc != 6)
    return 2;
  int fd = open(argv[1], O_RDWR);
  count = mmap(0, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || count == MAP_FAILED)
    return 1;
  close(fd);
  snprintf(old, sizeof(old), "%s/file", argv[3]);
  snprintf(fresh, sizeof(fresh), "%s/new", argv[3]);
  peer.sin_port = htons(atoi(argv[4]));
  time_t ends = time(0) + 900;
  while (!count[STOP] && time(0) < ends) {
    came_to(opens(argv[2], O_RDONLY));
    came_to(!unlink(old));
    came_to(opens(fresh, O_WRONLY | O_CREAT));
    came_to(connects(&peer));
    if (count[TRIES] % 8 == 0) {
      pid_t child = vfork();
      if (child == 0) {
        execl(argv[5], argv[5], argv[1], (char *)0);
        _exit(3);
      }
      waitpid(child, 0, 0);
    }
    count[TRIES]++;
    usleep(1000);
  }
  return 0;
}
