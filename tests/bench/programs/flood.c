/* SPDX-License-Identifier: GPL-2.0-only
 * Opens a file COUNT times at RATE a second, 0 for as fast as it can: flood COUNT RATE FILE. Prints the seconds it took. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define AT_A_TIME 50 /* between two looks at the clock: what a burst of an agent's is like, and shorter than any sleep */

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
  if (argc != 4)
    return fprintf(stderr, "usage: flood COUNT RATE FILE\n"), 2;
  long count = atol(argv[1]), rate = atol(argv[2]);
  double began = now();
  for (long i = 0; i < count; i++) {
    int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
      return perror(argv[3]), 1;
    close(fd);
    if (rate && i % AT_A_TIME == 0) {
      double early = began + (double)i / rate - now();
      if (early > 0)
        nanosleep(&(struct timespec){.tv_nsec = early < 0.9 ? early * 1e9 : 900000000}, 0);
    }
  }
  printf("%.6f\n", now() - began);
  return 0;
}
