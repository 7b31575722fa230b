/* race PROGRAM WORD TRIES: executes PROGRAM with the argument WORD, again and again, while a thread keeps changing WORD's last
 * byte between what was asked and 'z' in the very memory that exec copies from (the executing process shares it: CLONE_VM).
 * Prints how many of the programs ran to their end and how many were killed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char word[64], stack[1 << 16] __attribute__((aligned(16)));
static char *arguments[3];
static volatile int over;

static void *rewrite(void *last)
{
  char asked = *(char *)last;
  while (!over) {
    *(volatile char *)last = 'z';
    *(volatile char *)last = asked;
  }
  return 0;
}

static int execute(void *unused)
{
  execve(arguments[0], arguments, environ);
  _exit(7);
}

int main(int argc, char **argv)
{
  int status, ran = 0, killed = 0, other = 0;
  pthread_t thread;
  if (argc != 4)
    return 2;
  snprintf(word, sizeof(word), "%s", argv[2]);
  arguments[0] = argv[1];
  arguments[1] = word;
  pthread_create(&thread, 0, rewrite, word + strlen(word) - 1);
  for (int i = 0; i < atoi(argv[3]); i++) {
    pid_t pid = clone(execute, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, 0);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
      return 3;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      killed++;
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
      ran++;
    else
      other++;
  }
  over = 1;
  pthread_join(thread, 0);
  printf("%d %d %d\n", ran, killed, other);
  return 0;
}
