// SPDX-License-Identifier: GPL-2.0
/*
 * Starts another kernel without a reset of the machine.
 *
 *   kexec_file KERNEL INITRD PARAMETERS      loads it
 *   kexec_file -p KERNEL INITRD PARAMETERS   loads it for a crash of this one
 *   kexec_file -e                            starts it, once all devices are shut down
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/kexec.h>
#include <linux/reboot.h>
#include <sys/syscall.h>

static int fail(const char *what)
{
	fprintf(stderr, "kexec_file: %s: %s\n", what, strerror(errno));
	return 1;
}

static int load(const char *kernel, const char *initrd, const char *parameters,
		unsigned long flags)
{
	int kernel_fd, initrd_fd;

	kernel_fd = open(kernel, O_RDONLY);
	if (kernel_fd < 0)
		return fail(kernel);
	initrd_fd = open(initrd, O_RDONLY);
	if (initrd_fd < 0)
		return fail(initrd);
	if (syscall(SYS_kexec_file_load, kernel_fd, initrd_fd, strlen(parameters) + 1,
		    parameters, flags))
		return fail("the kernel is not loaded");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "-e")) {
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			LINUX_REBOOT_CMD_KEXEC, NULL);
		return fail("the kernel is not started");
	}
	if (argc == 5 && !strcmp(argv[1], "-p"))
		return load(argv[2], argv[3], argv[4], KEXEC_FILE_ON_CRASH);
	if (argc == 4)
		return load(argv[1], argv[2], argv[3], 0);
	fprintf(stderr, "usage: kexec_file [-p] KERNEL INITRD PARAMETERS | kexec_file -e\n");
	return 2;
}
