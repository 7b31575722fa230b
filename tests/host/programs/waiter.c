/* waiter WAY TARGET: is there with two threads before anybody adopts it, says "ready", and acts when a line comes on stdin: reads
 * TARGET, which goes to stdout. WAY: main, old (a thread that was there), new (a thread made afterwards), exec (an old
 * thread executes itself), child (forked by an old thread), orphan (the first thread has ended long before). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *way, *target;

static void attempt(void)
{
  char bytes[256];
  int fd = open(target, O_RDONLY);
  ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
  _exit(length > 0 && write(1, bytes, length) == length ? 0 : 1);
}

static void *attempt_in_thread(void *unused)
{
  attempt();
  return 0;
}

static void wait_for_line(void)
{
  char byte;
  while (read(0, &byte, 1) == 1 && byte != '\n')
    ;
}

static void *old(void *unused)
{
  pthread_t thread;
  int status;
  wait_for_line();
  if (!strcmp(way, "exec"))
    execl("/proc/self/exe", "waiter", "now", target, (char *)0);
  if (!strcmp(way, "child")) {
    if (fork() == 0)
      attempt();
    wait(&status);
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  }
  if (!strcmp(way, "new")) {
    pthread_create(&thread, 0, attempt_in_thread, 0);
    pause();
  }
  attempt();
  return 0;
}

int main(int argc, char **argv)
{
  pthread_t thread;
  if (argc != 3)
    return 2;
  way = argv[1];
  target = argv[2];
  if (!strcmp(way, "now"))
    attempt();
  if (strcmp(way, "main"))
    pthread_create(&thread, 0, old, 0);
  if (write(1, "ready\n", 6) != 6)
    return 3;
  if (!strcmp(way, "orphan"))
    syscall(SYS_exit, 0); /* this thread alone: its leader is a zombie from now on */
  if (!strcmp(way, "main")) {
    wait_for_line();
    attempt();
  }
  for (;;)
    pause();
}
