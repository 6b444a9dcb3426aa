# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Functions for jobs that go on in a second kernel, which kexec or a crash starts. Both
# kernels run the same job; the word second_kernel among the parameters tells them apart.
# They need refusals.sh.

# The kernel's file, which the runner appends to the image, and the image itself
# (retain_initrd).
KERNEL=/kernel
INITRD=/sys/firmware/initrd

# loads_kernel PARAMETERS, and loads_crash_kernel PARAMETERS
loads_kernel()
{
	/tests/iommu_rust/kexec_file "$KERNEL" "$INITRD" "$1 second_kernel"
}

loads_crash_kernel()
{
	/tests/iommu_rust/kexec_file -p "$KERNEL" "$INITRD" "$1 second_kernel"
}

# starts_kernel: the port sends the last characters first.
starts_kernel()
{
	sleep 0.3
	/tests/iommu_rust/kexec_file -e
}

# leaves_writing SLOT IOVA BYTES: the page-writer there writes to these addresses from now
# on. Bounded: ten seconds.
leaves_writing()
{
	takes "$1" || return
	/tests/iommu_rust/left_writing "$(function_of "$1")" "$2" "$3" >/tmp/writing 2>&1 &
	for _ in $(seq 100); do
		grep -q "writes to" /tmp/writing && return
		sleep 0.1
	done
	cat /tmp/writing
	return 1
}

# register_of SLOT OFFSET: a register of BAR 0.
register_of()
{
	register_bar=$(head -n 1 "/sys/bus/pci/devices/$(function_of "$1")/resource")
	devmem $((${register_bar%% *} + $2)) 64
}

# writes_still SLOT: the page-writer there has not stopped, and each write was taken.
writes_still()
{
	still_begun=$(register_of "$1" 0x40)
	sleep 1
	still_now=$(register_of "$1" 0x40)
	still_failed=$(register_of "$1" 0x50)
	echo "$still_begun writes, then $still_now, $still_failed refused"
	[ $((still_now)) -gt $((still_begun)) ] && [ $((still_failed)) = 0 ]
}

# memory_is_left_alone MIB: nothing writes to that much memory, during two seconds.
memory_is_left_alone()
{
	dd if=/dev/zero of=/tmp/left_alone bs=1M count="$1" 2>/dev/null || return
	sleep 2
	alone_written=$(tr -d '\000' </tmp/left_alone | wc -c)
	rm /tmp/left_alone
	echo "$alone_written bytes were written"
	[ "$alone_written" = 0 ]
}
