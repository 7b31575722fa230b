/* bomb COUNTERS MOST: waits for a byte of stdin, then forks without end: MOST chains of processes of which each forks its
 * successor and ends, so that no pid is alive for long. Bounded: MOST at a time, thirty seconds in all, no zombies. COUNTERS is a
 * file of eight u64 that is mapped: the first one counts forks, and stands still when all are gone. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  char byte;
  int fd = argc == 3 ? open(argv[1], O_RDWR) : -1;
  volatile unsigned long *count = mmap(0, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || count == MAP_FAILED || read(0, &byte, 1) < 0)
    return 1;
  time_t ends = time(0) + 30;
  signal(SIGCHLD, SIG_IGN); /* with the next line: who ends is gone at once, whoever its parent was */
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int chains = atoi(argv[2]), is_chain = 0;
  for (int i = 0; i < chains && !is_chain; i++)
    is_chain = fork() == 0;
  while (!is_chain && time(0) < ends)
    sleep(1);
  while (is_chain && time(0) < ends) {
    pid_t child = fork();
    if (child > 0)
      _exit(0);
    if (child == 0)
      __atomic_add_fetch(&count[0], 1, __ATOMIC_SEQ_CST);
  }
  return 0;
}
