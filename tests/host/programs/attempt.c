/* attempt read|exec TARGET COUNTERS PERIOD_US: tries one act again and again, each time in a child of its own, for at most
 * five minutes. COUNTERS is a file of eight u64 that is mapped: tries, successes, children that were killed, children that
 * ended otherwise; the last one ends the loop when it isn't 0. Static, so that it opens nothing but these. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIES, SUCCESSES, KILLED, ENDED, STOP = 7 };

static void act(const char *mode, const char *target, char *counters, volatile unsigned long *count)
{
  if (!strcmp(mode, "exec")) {
    execl(target, target, counters, (char *)0);
    _exit(3);
  }
  char byte;
  int fd = open(target, O_RDONLY);
  if (fd < 0)
    _exit(4);
  if (read(fd, &byte, 1) == 1)
    __atomic_add_fetch(&count[SUCCESSES], 1, __ATOMIC_SEQ_CST);
  _exit(0);
}

int main(int argc, char **argv)
{
  if (argc != 5)
    return 2;
  int fd = open(argv[3], O_RDWR);
  volatile unsigned long *count = mmap(0, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || count == MAP_FAILED)
    return 1;
  close(fd);
  time_t ends = time(0) + 300;
  while (!count[STOP] && time(0) < ends) {
    pid_t child = fork();
    if (child == 0)
      act(argv[1], argv[2], argv[3], count);
    int status = 0;
    if (child > 0 && waitpid(child, &status, 0) == child) {
      count[TRIES]++;
      count[WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? KILLED : ENDED]++;
    }
    usleep(atoi(argv[4]));
  }
  return 0;
}
