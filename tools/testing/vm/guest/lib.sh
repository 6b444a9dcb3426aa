# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The functions for jobs in the guest. Each test prints KTAP: its own output nested by
# two spaces, then one result line.

# The kernel's own, from tools/testing/selftests/kselftest.
# shellcheck source=/dev/null
. /lib/ktap_helpers.sh

# begin COUNT: what follows is the results of so many tests.
begin()
{
	ktap_print_header
	ktap_set_plan "$1"
}

# result STATUS NAME [REASON]: status by the convention of kselftest, 4 for a skip.
result()
{
	case $1 in
	0) ktap_test_pass "$2" ;;
	4) ktap_test_skip "$2" ;;
	*) ktap_test_fail "$2 # exit=$1${3:+ $3}" ;;
	esac
}

# nest NAME: nests its input as the subtest NAME. The name at the start lets a parser
# separate a program that died from the results around it. Line by line, so that the
# output before a crash is not lost.
nest()
{
	nest_begun=
	while IFS= read -r nest_line || [ -n "$nest_line" ]; do
		case $nest_begun$nest_line in
		"TAP version "*|"KTAP version "*)
			nest_begun=1
			printf '  KTAP version 1\n  # Subtest: %s\n' "$1"
			;;
		*) printf '  %s\n' "$nest_line" ;;
		esac
	done
}

# run SECONDS NAME PROGRAM [ARGUMENT...]. Not kselftest's runner.sh: it makes comments of a
# program's own results, so that programs would be counted, and not their tests.
run()
{
	run_limit=$1
	run_name=$2
	shift 2
	echo "# $*"
	read -r run_begun _ </proc/uptime
	{
		timeout "$run_limit" "$@" 2>&1
		echo $? >/tmp/status
	} | nest "$run_name"
	run_status=$(cat /tmp/status)
	read -r run_ended _ </proc/uptime
	# In the time of the guest.
	echo "# $run_name took $((${run_ended%.*} - ${run_begun%.*})) s"
	case $run_status in
	124|143) result "$run_status" "$run_name" "timeout after $run_limit s" ;;
	*) result "$run_status" "$run_name" ;;
	esac
}

# kunit_suites [NAME...]: the output of the suites that ran at boot or when their module
# was loaded; each NAME must be among them, and may skip no test.
kunit_suites()
{
	kunit_ran=
	for kunit_name in /sys/kernel/debug/kunit/*/results; do
		[ -r "$kunit_name" ] || continue
		kunit_name=${kunit_name%/results}
		kunit_ran="$kunit_ran ${kunit_name##*/}"
	done
	kunit_missing=
	for kunit_name in "$@"; do
		case "$kunit_ran " in
		*" $kunit_name "*) ;;
		*) kunit_missing="$kunit_missing $kunit_name" ;;
		esac
	done
	begin "$(echo "$kunit_ran $kunit_missing" | wc -w)"
	for kunit_name in $kunit_ran; do
		# Nested by four spaces there, below a plan of one.
		sed -n 's/^  \(  .*\)/\1/p' "/sys/kernel/debug/kunit/$kunit_name/results"
		kunit_skips=
		case " $* " in
		*" $kunit_name "*)
			kunit_skips=$(grep '# SKIP' "/sys/kernel/debug/kunit/$kunit_name/results")
			;;
		esac
		if grep -q '^not ok' "/sys/kernel/debug/kunit/$kunit_name/results"; then
			result 1 "$kunit_name"
		elif [ -n "$kunit_skips" ]; then
			result 1 "$kunit_name" "it skips a test on the machine that it is for"
		else
			result 0 "$kunit_name"
		fi
	done
	for kunit_name in $kunit_missing; do
		result 1 "$kunit_name" "the kernel ran no such suite"
	done
}

# A failed preparation ends the job: the results of later tests would be meaningless.
must()
{
	if ! "$@" >/tmp/must 2>&1; then
		sed 's/^/# /' /tmp/must
		dmesg | tail -n 5 | sed 's/^/# /'
		ktap_exit_fail_msg "'$*' failed in the guest"
	fi
}

# shared_memory SIZE: the page size of anonymous shared memory, small or huge.
shared_memory()
{
	case $1 in
	huge) shared_word=always ;;
	*) shared_word=never ;;
	esac
	must sh -c "echo $shared_word >/sys/kernel/mm/transparent_hugepage/shmem_enabled"
}

# swaps_to_disk: the disk can hold an image of memory. Bounded: ten seconds.
swaps_to_disk()
{
	must modprobe nvme
	for _ in $(seq 100); do
		[ -b /dev/nvme0n1 ] && break
		sleep 0.1
	done
	must mkswap /dev/nvme0n1
	must swapon /dev/nvme0n1
}

has_units()
{
	# Checks for the right entry: iommufd's mock has one there too.
	set -- /sys/class/iommu/rust-*
	test -e "$1"
}

# load_module NAME [PARAMETER...]: sets MODULE and MODULE_PARAMETERS for the tests of
# the driver itself.
load_module()
{
	must modprobe "$@"
	export MODULE="$1"
	shift
	export MODULE_PARAMETERS="$*"
	# Loading can succeed without taking a unit: the driver does not take a unit
	# that another driver uses.
	must has_units
}

# unbind_vfio unbinds VFIO_DEVICES from their driver.
unbind_vfio()
{
	for bind_bdf in $VFIO_DEVICES; do
		must sh -c "echo $bind_bdf >/sys/bus/pci/devices/$bind_bdf/driver/unbind"
	done
}

# bind_vfio VENDOR:DEVICE [DRIVER] binds every such PCI function to vfio-pci, or to that
# driver of VFIO, and sets VFIO_DEVICES to their addresses.
bind_vfio()
{
	bind_driver=${2:-vfio-pci}
	[ $# -eq 1 ] || must modprobe "$bind_driver"
	VFIO_DEVICES=
	for bind_path in /sys/bus/pci/devices/*; do
		bind_id=$(cat "$bind_path/vendor"):$(cat "$bind_path/device")
		if [ "$bind_id" = "0x${1%:*}:0x${1#*:}" ]; then
			bind_bdf=${bind_path##*/}
			echo "$bind_driver" >"$bind_path/driver_override"
			must sh -c "echo $bind_bdf >/sys/bus/pci/drivers/$bind_driver/bind"
			must test -d "$bind_path/vfio-dev"
			VFIO_DEVICES="$VFIO_DEVICES${VFIO_DEVICES:+ }$bind_bdf"
		fi
	done
	must test -n "$VFIO_DEVICES"
	echo "# $bind_driver: $VFIO_DEVICES"
}
