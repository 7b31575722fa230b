/* SPDX-License-Identifier: GPL-2.0-only
 * The smallest program: what spawning and executing costs by itself. Built with -static -nostdlib, x86-64. */
void _start(void)
{
  __asm__ volatile("mov $231, %eax\n xor %edi, %edi\n syscall"); /* exit_group(0) */
}
