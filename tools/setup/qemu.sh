# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The emulator: Debian's source of QEMU with the changes of tools/qemu, or the
# user's own binary.

QEMU_SUITE=trixie

check_own_qemu()
{
	local path
	path=$(command -v "$QEMU") ||
		die "QEMU=$QEMU is not a program: name a qemu-system-x86_64"
	"$path" --version 2>/dev/null | grep -q '^QEMU emulator' ||
		die "QEMU=$QEMU does not run or is not QEMU: name a qemu-system-x86_64"
	"$path" -device intel-iommu,help 2>/dev/null | grep -q 'ssads=' ||
		die "QEMU=$QEMU has no property ssads of intel-iommu: build one with the" \
			"patches of tools/qemu, or leave QEMU out"
	QEMU=$(realpath "$path")
}

step_qemu_source()
{
	local into=$CACHE/source/qemu
	need_space 1
	private_lists deb-src "$QEMU_SUITE"
	rm -rf "$into.partial"
	mkdir -p "$into.partial"
	( cd "$into.partial" && apt_private apt-get source --download-only qemu ) ||
		die "the source of QEMU cannot be downloaded: check the network and the" \
			"sources of apt"
	mv "$into.partial" "$into"
}

step_qemu()
{
	need_space 3
	JOBS=$JOBS "$TOP/tools/qemu/build" "$CACHE/source/qemu" "$CACHE/qemu/$QEMU_KEY" ||
		die "QEMU does not build: $(grep '^qemu: ' "$CACHE/log/qemu.log" | tail -n1)"
}

# Sets QEMU, the emulator to use, and QEMU_KEY if it is built here.
name_qemu()
{
	if [ -n "$QEMU" ]; then
		return 0
	fi
	QEMU_KEY=$("$TOP/tools/qemu/build" --key) || die "tools/qemu/build --key failed"
	QEMU=$CACHE/qemu/$QEMU_KEY/qemu-system-x86_64
}

# The emulator that name_qemu has named.
provide_qemu()
{
	if [ -x "$QEMU" ]; then
		return 0
	fi
	if [ ! -d "$CACHE/source/qemu" ]; then
		run_step qemu-source "source of QEMU, from Debian $QEMU_SUITE" \
			always step_qemu_source
	fi
	run_step qemu "QEMU with truthful dirty bits" always step_qemu
	[ -x "$QEMU" ] || die "tools/qemu/build left no $QEMU"
}
