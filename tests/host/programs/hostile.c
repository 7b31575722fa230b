/* hostile LIST FOLDER: creates a file in FOLDER for each name of LIST, then executes itself with each argument list of it.
 * LIST is numbers (32 bits, of this machine) and bytes: how many names, each as length and bytes; how many argument
 * lists, each as how many arguments, each of those as length and bytes. Without an environment it is one of its own
 * children, whatever its arguments are, and ends at once. Prints how many files and programs there were. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGUMENTS 64
#define MAX_TEXT (1 << 20)

extern char **environ;
static char *at;

static uint32_t number(void)
{
  uint32_t value;
  memcpy(&value, at, sizeof(value));
  at += sizeof(value);
  return value;
}

static char *text(char *to)
{
  uint32_t length = number();
  memcpy(to, at, length);
  to[length] = 0;
  at += length;
  return to + length + 1;
}

static int create(const char *folder)
{
  static char path[4096];
  size_t length = strlen(folder);
  memcpy(path, folder, length);
  path[length] = '/';
  text(path + length + 1);
  int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}

static int execute(const char *program)
{
  static char texts[MAX_TEXT], *arguments[MAX_ARGUMENTS + 1], *none[1];
  char *next = texts;
  uint32_t count = number();
  for (uint32_t i = 0; i < count; i++) {
    arguments[i] = next;
    next = text(next);
  }
  arguments[count] = 0;
  int status = -1;
  pid_t pid = vfork();
  if (pid == 0) {
    execve(program, arguments, none);
    _exit(1);
  }
  return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

int main(int argc, char **argv)
{
  if (!environ || !environ[0])
    return 0;
  struct stat stat;
  int fd = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0 || fstat(fd, &stat) || !(at = malloc(stat.st_size)) || read(fd, at, stat.st_size) != stat.st_size)
    return 2;
  uint32_t created = 0, executed = 0;
  for (uint32_t left = number(); left; left--)
    created += create(argv[2]);
  for (uint32_t left = number(); left; left--)
    executed += execute(argv[0]);
  printf("%u %u\n", created, executed);
  return 0;
}
