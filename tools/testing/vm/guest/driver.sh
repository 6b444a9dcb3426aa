# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Functions for the tests that load and unload the driver: MODULE is its name and
# MODULE_PARAMETERS are its parameters, both from load_module of lib.sh.

RELEASE=/sys/kernel/debug/$MODULE/release
DISK=/dev/nvme0n1

# expect WORD NAME COMMAND...: WORD is pass or fail, the required result of the
# command.
expect()
{
	expect_word=$1
	expect_name=$2
	shift 2
	if "$@" >/tmp/expect 2>&1; then
		expect_got=pass
	else
		expect_got=fail
	fi
	[ "$expect_got" = "$expect_word" ] || sed 's/^/# /' /tmp/expect
	[ "$expect_got" = "$expect_word" ]
	result $? "$expect_name"
}

release()
{
	echo "$1" >"$RELEASE"
}

# The driver left nothing: no unit, no claim on its registers, no switch.
is_gone()
{
	! has_units && ! grep -q "$MODULE" /proc/iomem && ! [ -e "$RELEASE" ]
}

is_refused()
{
	! modprobe "$MODULE" "$1" && is_gone
}

is_loaded()
{
	# shellcheck disable=SC2086 # a list of words
	modprobe "$MODULE" $MODULE_PARAMETERS && has_units
}

# unloads: also while a user has files of the driver open, which then say nothing more.
unloads()
{
	unloads_status=1
	for unloads_state in "${RELEASE%/release}"/units/*0/state; do
		[ -r "$unloads_state" ] || return 1
	done
	exec 8>>"$RELEASE" 9<"$unloads_state"
	if rmmod "$MODULE" && is_gone && ! cat <&9; then
		unloads_status=0
	fi
	exec 8>&- 9<&-
	return $unloads_status
}

# pasids_are BIT: the switch of the PASID capability, at 0x100, of each pasid-dma.
pasids_are()
{
	for pasid_path in /sys/bus/pci/devices/*; do
		[ "$(cat "$pasid_path/vendor"):$(cat "$pasid_path/device")" = 0x1234:0x11ef ] ||
			continue
		[ "$(hexdump -s 262 -n 1 -e '1/1 "%d"' "$pasid_path/config")" = "$1" ] || return 1
	done
}

# releases: devices have PASIDs enabled only while a unit translates them.
releases()
{
	pasids_are 1 && release 1 && pasids_are 0
}

# vfio_pci WORD BDF...: WORD is bind or unbind.
vfio_pci()
{
	vfio_word=$1
	shift
	for vfio_bdf in "$@"; do
		echo "$vfio_bdf" >"/sys/bus/pci/drivers/vfio-pci/$vfio_word"
	done
}

# Bounded: ten seconds.
disk_is_there()
{
	for _ in $(seq 100); do
		[ -b "$DISK" ] && return
		sleep 0.1
	done
	return 1
}

# faults: those in the log, with the device that caused each.
faults()
{
	# The driver may poll them only every half second.
	sleep 1
	# Those of a unit that is shared come from the kernel's handler.
	dmesg | grep -E "^(\[[^]]*\] )?($MODULE: .*, device [0-9a-f]|DMAR: \[DMA .*Request device)"
}

no_fault()
{
	! faults
}

# iommu_pages: how many the page tables and the unit's own tables have.
iommu_pages()
{
	echo 1 >/proc/sys/vm/stat_refresh
	sed -n 's/^nr_iommu_pages //p' /proc/vmstat
}
