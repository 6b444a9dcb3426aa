# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What a test machine needs to run virtual machines: Debian's QEMU with its libraries and
# firmware, and the programs of tools/vm-migrate. The virtual machine runs the same kernel
# as the test machine. All of it is one archive, which follows the usual image.

VMM_SUITE=trixie

# The firmware that this QEMU reads when it starts a virtual machine with a kernel (PVH).
VMM_FIRMWARE="share/seabios/bios-256k.bin share/qemu/pvh.bin share/qemu/linuxboot_dma.bin
		share/qemu/kvmvapic.bin"

# Downloads a package with all that it depends on, as if nothing were installed.
fetch_with_libraries()
{
	local package=$1 into=$2 deb
	mkdir -p "$into/debs/partial" "$into/root"
	: >"$into/status"
	apt_private apt-get -y --no-install-recommends --download-only \
		-o Dir::State::status="$into/status" -o Dir::Cache::archives="$into/debs" \
		install "$package" ||
		die "the package $package cannot be downloaded: check the network and the" \
			"sources of apt"
	for deb in "$into"/debs/*.deb; do
		dpkg -x "$deb" "$into/root"
	done
}

# step_vmm INTO: lays out the files for the test machine: the binary, its libraries in the linker's
# default path, and the firmware.
step_vmm()
{
	local unpacked=$CACHE/vmm/unpacked root=$CACHE/vmm/unpacked/root/usr into=$1.partial
	local linker=lib64/ld-linux-x86-64.so.2 libraries file
	need_space 1
	private_lists deb "$VMM_SUITE"
	rm -rf "$unpacked" "$into"
	fetch_with_libraries qemu-system-x86 "$unpacked"
	mkdir -p "$into/vm" "$into/lib64" "$into/lib/x86_64-linux-gnu" "$into/usr/share/qemu"
	cp "$root/bin/qemu-system-x86_64" "$into/vm/qemu"
	cp -L "$root/$linker" "$into/$linker"
	libraries=$(
		"$root/$linker" --library-path "$root/lib/x86_64-linux-gnu" --list "$into/vm/qemu" |
			awk '$2 == "=>" { print $3 }'
	)
	for file in $libraries; do
		[ -f "$file" ] || die "a library of QEMU is in no package that it depends on: $file"
		cp -L "$file" "$into/lib/x86_64-linux-gnu/"
	done
	for file in $VMM_FIRMWARE; do
		cp -L "$root/$file" "$into/usr/share/qemu/"
	done
	strip "$into/vm/qemu" "$into"/lib/x86_64-linux-gnu/*
	rm -rf "$unpacked" "$1"
	mv "$into" "$1"
}

provide_vmm()
{
	local into=$1 key
	key=$({ printf '%s\n' "$into" "$VMM_SUITE"; cat "$HERE/vmm.sh"; } | digest)
	run_step vmm "QEMU as Debian $VMM_SUITE has it, with libraries" "$key" step_vmm "$into"
}

provide_vm_migrate()
{
	run_step vm-migrate "programs that migrate a virtual machine" "$(program_key vm-migrate)" \
		static_program vm-migrate vm-migrate vm-guest
}

step_vmm_image()
{
	local tree=$1 vmm=$2 image=$3 into=$CACHE/vmm/image.partial
	rm -rf "$into"
	mkdir -p "$into"
	cp -r "$vmm" "$into/root"
	# PVH needs the linked kernel (vmlinux).
	strip -o "$into/root/vm/kernel" "$tree/vmlinux"
	install -D "$CACHE/programs/vm-migrate" "$into/root/bin/vm-migrate"
	{
		printf 'dir /dev 755 0 0\n'
		printf 'nod /dev/console 600 0 0 c 5 1\n'
		printf 'file /init %s 755 0 0\n' "$CACHE/programs/vm-guest"
	} >"$into/list"
	( cd "$tree" && usr/gen_initramfs.sh -o "$into/root/vm/initrd" "$into/list" )
	( cd "$tree" && usr/gen_initramfs.sh -u squash -g squash -o "$into/vmm.cpio" "$into/root" )
	mv "$into/vmm.cpio" "$image"
	rm -rf "$into"
}

# provide_vmm_image TREE VMM IMAGE: the archive of what provide_vmm and provide_vm_migrate have
# built, and of the tree's kernel.
provide_vmm_image()
{
	local tree=$1 vmm=$2 image=$3 key
	key=$(
		{
			program_key vm-migrate
			kernel_key "$tree"
			printf '%s\n' "$image"
			cat "$CACHE/stamps/vmm" "$HERE/vmm.sh"
		} | digest
	)
	run_step "vmm-image${DEBUG:+-$DEBUG}" "archive of that for the test machines" "$key" \
		step_vmm_image "$tree" "$vmm" "$image"
}
