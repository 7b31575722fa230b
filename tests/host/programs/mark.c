/* mark COUNTERS: the program that must never run. If it does, it says so where attempt.c counts successes. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  int fd = argc > 1 ? open(argv[1], O_RDWR) : -1;
  unsigned long *count = mmap(0, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || count == MAP_FAILED)
    return 1;
  __atomic_add_fetch(&count[1], 1, __ATOMIC_SEQ_CST);
  return 0;
}
