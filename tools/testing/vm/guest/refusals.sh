# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Functions for the tests of what a driver refuses, and of odd firmware that it
# accepts. They need driver.sh, and MODULE set. Each one succeeds silently, or says
# what is wrong.

# module_says MODULE WORDS: the module has logged them since the log was last cleared.
module_says()
{
	dmesg | grep -F "$1: " | grep -qF "$2" && return
	dmesg | grep -F "$1: "
	return 1
}

# says WORDS: as above, for the driver.
says()
{
	module_says "$MODULE" "$1"
}

# does_not_load MODULE ERROR WORDS [PARAMETER...]: loading fails with this error, and
# the log says why.
does_not_load()
{
	load_module=$1
	load_error=$2
	load_words=$3
	shift 3
	dmesg -c >/dev/null
	if modprobe "$load_module" "$@" 2>/tmp/refusal; then
		echo "it was loaded"
		return 1
	fi
	cat /tmp/refusal
	grep -qF "$load_error" /tmp/refusal && module_says "$load_module" "$load_words" &&
		! grep -q "^$load_module " /proc/modules
}

# refuses ERROR WORDS [PARAMETER...]: the driver does not load, and leaves nothing.
refuses()
{
	does_not_load "$MODULE" "$@" && is_gone
}

# claims MODULE: the number of register ranges that it has claimed.
claims()
{
	grep -c "$1" /proc/iomem
}

# refuses_beside MODULE ERROR WORDS: another driver does not load, and the driver
# drives the units as before.
refuses_beside()
{
	refuses_claims=$(claims "$MODULE")
	does_not_load "$@" && has_units && [ "$(claims "$1")" = 0 ] &&
		[ "$(claims "$MODULE")" = "$refuses_claims" ] && [ -e "$RELEASE" ]
}

# Writes and reads a disk by DMA, with or without a driver of the unit.
disk_works()
{
	modprobe nvme && disk_is_there || return
	dd if=/dev/urandom of=/tmp/written bs=64k count=4 2>/dev/null
	dd if=/tmp/written of="$DISK" bs=64k oflag=direct conv=notrunc 2>/dev/null || return
	dd if="$DISK" of=/tmp/read bs=64k count=4 iflag=direct 2>/dev/null || return
	cmp /tmp/written /tmp/read
}

# function_of SLOT: the function 0 of that slot, unless the name of another one follows a
# dot; SLOT begins with the bus unless it is the root bus.
function_of()
{
	case $1 in
	*.*) echo "0000:00:$1" ;;
	*:*) echo "0000:$1.0" ;;
	*) echo "0000:00:$1.0" ;;
	esac
}

# takes SLOT: vfio-pci binds to the function.
takes()
{
	takes_bdf=$(function_of "$1")
	echo vfio-pci >"/sys/bus/pci/devices/$takes_bdf/driver_override"
	[ -e /sys/bus/pci/drivers/vfio-pci/"$takes_bdf" ] ||
		echo "$takes_bdf" >/sys/bus/pci/drivers/vfio-pci/bind
}

gives_back()
{
	gives_bdf=$(function_of "$1")
	echo "$gives_bdf" >/sys/bus/pci/drivers/vfio-pci/unbind
}

# frees_port_of SLOT: the port above the function loses its driver.
frees_port_of()
{
	port_path=$(realpath "/sys/bus/pci/devices/$(function_of "$1")/..")
	basename "$port_path" >/sys/bus/pci/drivers/pcieport/unbind
}

# migrates SLOT: migrates memory that the function at vfio-pci writes.
migrates()
{
	iommu-migrate --device "$(function_of "$1")" --size 4M --progress plain
}

# does_not_migrate SLOT WORDS: the migration program says why.
does_not_migrate()
{
	if migrates "$1" >/tmp/migration 2>&1; then
		echo "it does"
		return 1
	fi
	cat /tmp/migration
	grep -qF "$2" /tmp/migration
}

# untracked SLOT: writes are not tracked, and everything else works.
untracked()
{
	/tests/iommu_rust/untracked "$(function_of "$1")"
}

# dies TEST SLOT SLOT: a test of dead_unit, after which the unit is dead.
dies()
{
	dmesg -c >/dev/null
	/tests/iommu_rust/dead_unit -t "$1" "$(function_of "$2")" "$(function_of "$3")"
}

# enables SLOT: the kernel enables the function, and the bridges above it.
enables()
{
	echo 1 >"/sys/bus/pci/devices/$(function_of "$1")/enable"
}

# masters SLOT: the function may make requests; a bridge passes them on.
masters()
{
	masters_command=$(od -An -tu2 -j4 -N2 "/sys/bus/pci/devices/$(function_of "$1")/config")
	echo "command register: $masters_command"
	[ $((masters_command & 4)) != 0 ]
}

# becomes_master SLOT: an enabled function may make requests from now on.
becomes_master()
{
	printf '\006\000' | dd of="/sys/bus/pci/devices/$(function_of "$1")/config" \
		bs=2 seek=2 conv=notrunc 2>/dev/null && masters "$1"
}

# says_once WORDS: the driver said it once.
says_once()
{
	dmesg | grep -F "$MODULE: " | grep -F "$1" >/tmp/said
	cat /tmp/said
	[ "$(wc -l </tmp/said)" = 1 ]
}

# migrates_again SLOT: vfio binds once more, and memory is migrated.
migrates_again()
{
	takes "$1" && migrates "$1"
}

# Memory that memmap= takes from the kernel, for the tables of an earlier kernel.
LEFT=$((0x10000000))

# registers BASE [OFFSET BITS VALUE]...: writes them in sequence.
registers()
{
	registers_base=$1
	shift
	while [ $# -gt 0 ]; do
		devmem $((registers_base + $1)) "$2" $(($3)) || return
		shift 3
	done
}

# leaves_vtd_on [TAIL]: what an earlier kernel may leave on: a queue of narrow descriptors,
# in which the unit has done the wait in the first slot, and translation with an empty
# root table. With a tail the unit has stopped at an invalid descriptor before it, and
# does not translate.
leaves_vtd_on()
{
	registers $LEFT 0 64 0x100000025 8 64 $((LEFT + 0x1000)) 0x10 64 0xf || return
	registers 0xfed90000 0x88 64 0 0x90 64 $LEFT 0x18 32 0x04000000 \
		0x88 64 "${1:-0x10}" || return
	if [ $# -eq 0 ]; then
		registers 0xfed90000 0x20 64 $((LEFT + 0x2000)) 0x18 32 0x44000000 \
			0x18 32 0x84000000 || return
	fi
	left_status=$(devmem 0xfed9001c 32)
	echo "status $left_status"
	[ $((left_status & 0x04000000)) != 0 ] &&
		{ [ $# -ne 0 ] || [ $((left_status & 0x80000000)) != 0 ]; }
}

# The queue is off, and so is translation.
is_vtd_off()
{
	left_status=$(devmem 0xfed9001c 32)
	echo "status $left_status"
	[ $((left_status & 0x84000000)) = 0 ]
}

# The same for AMD-Vi: the command buffer, the event log and translation. The device table,
# of 16 pages, lets all requests pass; without an entry the IOAPIC would raise no interrupt.
leaves_amdvi_on()
{
	registers 0xfed80000 0x00 64 $((LEFT + 0x1000f)) 0x08 64 $((LEFT + 0x1000 | 8 << 56)) \
		0x10 64 $((LEFT + 0x2000 | 8 << 56)) 0x18 64 0x1405 || return
	left_control=$(devmem 0xfed80018 64)
	echo "control $left_control"
	[ $((left_control & 0x1005)) = $((0x1005)) ]
}

is_amdvi_off()
{
	left_control=$(devmem 0xfed80018 64)
	echo "control $left_control"
	[ $((left_control & 0x100d)) = 0 ]
}

# is_outside SLOT: no unit serves the function.
is_outside()
{
	! [ -e "/sys/bus/pci/devices/$(function_of "$1")/iommu_group" ]
}

# units_are COUNT: the driver drives that many units.
units_are()
{
	ls -d /sys/class/iommu/rust-*
	[ "$(find /sys/class/iommu -name 'rust-*' | wc -l)" = "$1" ]
}

# shares SLOT SLOT: both write through one page table, and all their writes are found.
shares()
{
	/tests/iommu_rust/dirty_shared -v leaf_4k "$(function_of "$1")" "$(function_of "$2")" \
		>/tmp/shares && ! grep -q SKIP /tmp/shares && return
	cat /tmp/shares
	return 1
}

# share_group SLOT SLOT: the two functions are in one group.
share_group()
{
	share_one=$(readlink "/sys/bus/pci/devices/$(function_of "$1")/iommu_group")
	share_other=$(readlink "/sys/bus/pci/devices/$(function_of "$2")/iommu_group")
	echo "$share_one $share_other"
	[ -n "$share_one" ] && [ "$share_one" = "$share_other" ]
}

# domain_is SLOT TYPE: its default domain has this type.
domain_is()
{
	domain_file=/sys/bus/pci/devices/$(function_of "$1")/iommu_group/type
	cat "$domain_file"
	grep -qx "$2" "$domain_file"
}

# domain_becomes SLOT TYPE: the core switches it to this default domain.
domain_becomes()
{
	echo "$2" >"/sys/bus/pci/devices/$(function_of "$1")/iommu_group/type"
}

# reserves SLOT FIRST LAST TYPE: the function's group has this region.
reserves()
{
	reserves_file=/sys/bus/pci/devices/$(function_of "$1")/iommu_group/reserved_regions
	cat "$reserves_file"
	grep -qx "$2 $3 $4" "$reserves_file"
}

# copies SLOT: the edu device there reaches memory at its physical address.
copies()
{
	/tests/iommu_rust/edu_copy "$(function_of "$1")"
}

# is_stopped_at SLOT ADDRESS: the unit refuses an access of the edu device there.
is_stopped_at()
{
	dmesg -c >/dev/null
	/tests/iommu_rust/edu_copy "$(function_of "$1")" "$2" && faults || return
	# Later checks must not find these faults.
	dmesg -c >/dev/null
}

# lets_go: the driver restores the units, and is unloaded.
lets_go()
{
	release 1 && pasids_are 0 && unloads
}

# kernel_says WORDS: as says, but for any part of the kernel.
kernel_says()
{
	dmesg | grep -qF "$1"
}

has_no_region()
{
	! is_outside "$1" && ! reserves "$@"
}

# gets_virtual SLOT COUNT: the function at vfio-pci has so many virtual functions.
gets_virtual()
{
	virtual_path=/sys/bus/pci/devices/$(function_of "$1")
	echo "$2" >"$virtual_path/sriov_numvfs" || return
	find "$virtual_path/" -maxdepth 1 -name 'virtfn*' -exec readlink {} \; >/tmp/virtual
	cat /tmp/virtual
	[ "$(wc -l </tmp/virtual)" = "$2" ]
}

# rescans BRIDGE SLOT: the bridge goes, with the function behind it, and both are found again.
rescans()
{
	rescans_bridge=/sys/bus/pci/devices/$(function_of "$1")
	rescans_behind=/sys/bus/pci/devices/$(function_of "$2")
	echo 1 >"$rescans_bridge/remove" || return
	! [ -e "$rescans_bridge" ] && ! [ -e "$rescans_behind" ] || return
	echo 1 >/sys/bus/pci/rescan && [ -e "$rescans_behind" ]
}

# There is no such line before the first one.
spurious_interrupts()
{
	spurious_sum=0
	for spurious_count in $(grep SPU: /proc/interrupts | tr -dc '0-9 '); do
		spurious_sum=$((spurious_sum + spurious_count))
	done
	echo $spurious_sum
}

# forges_when_gone SLOT: the edu device there raises an interrupt by a write, after the kernel has
# taken it off the bus. Needs LEFT_MEMORY. The kernel counts one of this vector as spurious.
# The log is cleared first, so a message that is in it afterwards is about this.
forges_when_gone()
{
	dmesg -c >/dev/null
	gone_path=/sys/bus/pci/devices/$(function_of "$1")
	gone_bar=$(head -n 1 "$gone_path/resource")
	gone_bar=$((${gone_bar%% *}))
	enables "$1" && becomes_master "$1" || return
	# The message goes into the device's buffer, while it reaches memory.
	registers $LEFT 0 32 0xed || return
	registers $gone_bar 0x80 64 $LEFT 0x88 64 0x40000 0x90 64 4 0x98 64 1 || return
	sleep 1
	echo 1 >"$gone_path/remove" && ! [ -e "$gone_path" ] || return
	gone_before=$(spurious_interrupts)
	registers $gone_bar 0x80 64 0x40000 0x88 64 0xfee00000 0x90 64 4 0x98 64 3 || return
	sleep 1
	gone_after=$(spurious_interrupts)
	echo 1 >/sys/bus/pci/rescan && [ -e "$gone_path" ] || return
	echo "spurious interrupts: $gone_before, then $gone_after"
	[ "$gone_after" -gt "$gone_before" ]
}

# forges_nothing SLOT: the interrupts that the function at vfio-pci forges are refused.
forges_nothing()
{
	/tests/iommu_rust/forged_msi "$(function_of "$1")"
}
