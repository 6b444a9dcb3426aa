# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What build and series share: QEMU's source package.

# Blobs that QEMU's build names but Debian's source package leaves out: the
# firmware that runs comes from the installed packages.
readonly EDK2_BLOBS=(
	aarch64-code arm-code arm-vars riscv-code riscv-vars
	i386-code i386-secure-code i386-vars
	x86_64-code x86_64-secure-code
	loongarch64-code loongarch64-vars
)

die() {
	printf 'qemu: %s\n' "$*" >&2
	exit 1
}

say() {
	printf 'qemu: %s\n' "$*"
}

# need TOOL PACKAGE
need() {
	command -v "$1" > /dev/null ||
		die "$1 is missing: install the package $2."
}

# find_tarball SOURCE_DIR
find_tarball() {
	local -a found
	[[ -d $1 ]] || die "$1 is not a directory: name the one with QEMU's source package."
	shopt -s nullglob
	found=("$1"/qemu_10.0.*.orig.tar.xz)
	shopt -u nullglob
	((${#found[@]} == 1)) ||
		die "$1 holds ${#found[@]} files named qemu_10.0.*.orig.tar.xz, exactly one is needed: get Debian trixie's source package qemu."
	printf '%s\n' "${found[0]}"
}

# unpack TARBALL TREE: without the patches
unpack() {
	local blob
	mkdir -p "$2"
	tar -xf "$1" -C "$2" --strip-components=1 ||
		die "$1 does not unpack: download it again."
	for blob in "${EDK2_BLOBS[@]}"; do
		bzip2 -c < /dev/null > "$2/pc-bios/edk2-$blob.fd.bz2"
	done
}
