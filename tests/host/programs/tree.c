/* tree N: a process with N descendants that are hard to end: asleep, deaf to signals, stopped, leaders of sessions of their
 * own, orphans, spinning (twelve at most, at the lowest priority). Prints "ready" when all are there. All end by
 * themselves after two minutes. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long *there;

static __attribute__((noreturn)) void stay(void)
{
  __atomic_add_fetch(there, 1, __ATOMIC_SEQ_CST);
  for (;;)
    pause();
}

static void live(int i)
{
  alarm(120);
  switch (i % 6) {
  case 0:
    stay();
  case 1:
    for (int number = 1; number < 32; number++)
      if (number != SIGALRM)
        signal(number, SIG_IGN);
    stay();
  case 2:
    __atomic_add_fetch(there, 1, __ATOMIC_SEQ_CST);
    for (;;)
      raise(SIGSTOP);
  case 3:
    setsid();
    stay();
  case 4:
    if (fork())
      _exit(0);
    alarm(120);
    setsid();
    stay();
  }
  __atomic_add_fetch(there, 1, __ATOMIC_SEQ_CST);
  (void)!nice(19);
  for (;;)
    if (i > 72)
      pause();
}

int main(int argc, char **argv)
{
  int n = argc > 1 ? atoi(argv[1]) : 0;
  there = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  alarm(120);
  for (int i = 0; i < n; i++) {
    pid_t child = fork();
    if (child == 0)
      live(i);
    if (i % 6 == 4)
      waitpid(child, 0, 0);
  }
  while (*there < n)
    usleep(1000);
  (void)!write(1, "ready\n", 6);
  for (;;)
    pause();
}
