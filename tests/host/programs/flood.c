/* flood PATH OPENS PROCESSES PORT CONNECTS: waits for a byte (or the end) of stdin; then PROCESSES children open PATH, OPENS
 * times in all, while this process connects to 127.0.0.1:PORT CONNECTS times. Prints what was really done: opens that
 * succeeded, connects that were refused with EPERM, connects that were not. Static, so that it opens nothing else. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_often(const char *path, long times, unsigned long *done)
{
  for (long i = 0; i < times; i++) {
    int fd = open(path, O_RDONLY);
    if (fd < 0)
      continue;
    __atomic_add_fetch(done, 1, __ATOMIC_SEQ_CST);
    close(fd);
  }
}

int main(int argc, char **argv)
{
  char byte;
  if (argc != 6 || read(0, &byte, 1) < 0)
    return 2;
  unsigned long *done = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  long opens = atol(argv[2]), processes = atol(argv[3]), refused = 0, passed = 0;
  for (long i = 0; i < processes; i++)
    if (fork() == 0) {
      open_often(argv[1], opens / processes, done);
      _exit(0);
    }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[4])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  for (long i = atol(argv[5]); i > 0; i--) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno == EPERM)
      refused++;
    else
      passed++;
    close(fd);
  }
  while (wait(0) > 0)
    ;
  printf("%lu %ld %ld\n", *done, refused, passed);
  return 0;
}
