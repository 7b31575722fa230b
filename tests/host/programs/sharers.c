/* sharers WAY TARGET: opens TARGET into a descriptor table that another process shares (CLONE_FILES, no thread); the other
 * one reads what it finds there and writes it to stdout. WAY: busy (it polls), asleep (it sleeps and never looks), threads
 * (busy, and the opener has threads with tables of their own, so that counting threads hides the sharer). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3
static char stack[1 << 16] __attribute__((aligned(16)));
static int expected; /* the lowest free descriptor: where TARGET will be */
static pthread_barrier_t ready;

static int busy(void *unused)
{
  char bytes[256];
  for (long turn = 0; turn < 2000000; turn++) {
    ssize_t length = read(expected, bytes, sizeof(bytes));
    if (length <= 0)
      continue;
    usleep(300000); /* alive so long after the opener's death: it has got out */
    return write(1, bytes, length) != length;
  }
  return 1;
}

static int asleep(void *unused)
{
  sleep(40);
  return write(1, "woke up\n", 8) != 8;
}

static void *aside(void *unused)
{
  unshare(CLONE_FILES);
  pthread_barrier_wait(&ready);
  pause();
  return 0;
}

int main(int argc, char **argv)
{
  if (argc != 3)
    return 2;
  expected = dup(0);
  close(expected);
  if (!strcmp(argv[1], "threads")) {
    pthread_t thread;
    pthread_barrier_init(&ready, 0, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
      pthread_create(&thread, 0, aside, 0);
    pthread_barrier_wait(&ready);
  }
  /* a memory of its own, so that only the table is shared */
  pid_t sharer = clone(strcmp(argv[1], "asleep") ? busy : asleep, stack + sizeof(stack), CLONE_FILES | SIGCHLD, 0);
  usleep(50000); /* let it come to where it polls or sleeps; the test holds without this, too */
  if (open(argv[2], O_RDONLY) != expected)
    return 3;
  waitpid(sharer, 0, 0);
  return 0;
}
