# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the guest runs: the kernel's own tests and this project's, the programs that migrate and
# soak, and the image that holds them.

UPSTREAM_TESTS="vfio/vfio_pci_driver_test vfio/vfio_dma_mapping_test
		vfio/vfio_iommufd_setup_test vfio/vfio_pci_device_test
		iommu/iommufd iommu/iommufd_fail_nth"
IMAGES_KEPT=4

# build_selftests NAME TREE INTO: builds one directory of selftests of the tree, static, out
# of the tree. tools/include goes before the installed headers, which hide its helpers.
build_selftests()
{
	make -s -C "$2/tools/testing/selftests/$1" OUTPUT="$3/$1" LLVM="$LLVM" \
		KHDR_INCLUDES="-I$2/tools/include -isystem $2/usr/include" \
		LDFLAGS=-static EXTRA_CFLAGS=-O2 -j"$JOBS" ||
		die "the selftests of $1 do not build:" \
			"$(grep -m1 -E 'error:|Error ' "$CACHE/log/selftests.log")"
}

step_selftests()
{
	local tree=$1 into=$CACHE/selftests name
	rm -rf "$into"
	for name in vfio iommu iommu_rust; do
		mkdir -p "$into/$name" "$into/bin/$name"
		build_selftests "$name" "$tree" "$into"
	done
	for name in $UPSTREAM_TESTS; do
		cp "$into/$name" "$into/bin/${name%/*}/"
	done
	find "$into/iommu_rust" -maxdepth 1 -type f -perm -u+x \
		-exec cp {} "$into/bin/iommu_rust/" \;
}

selftests_key()
{
	{
		printf '%s\n' "$(kernel_source)" "$LLVM"
		cat "$1/.overlay/sync.serial" 2>/dev/null || true
		digest_of "$1/tools/testing/selftests/iommu_rust"
		digest_of "$HERE/guest.sh"
	} | digest
}

provide_selftests()
{
	run_step selftests "kernel selftests, upstream's and ours" "$(selftests_key "$1")" \
		step_selftests "$1"
}

# static_program CRATE BINARY...: builds a crate of tools/, and leaves its binaries in
# the cache.
static_program()
{
	local crate=$1 target=$CACHE/cargo/crates binary
	shift
	"$HERE/own-target" "$target"
	# Static: the guest has no libraries.  With --target the flag does not
	# reach build scripts, which run here.
	RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$target \
		cargo build --release --locked -j"$JOBS" --target x86_64-unknown-linux-gnu \
		--manifest-path "$TOP/tools/$crate/Cargo.toml" ||
		die "tools/$crate does not build: $(grep -m1 '^error' "$CACHE/log/$crate.log")"
	# The tests of another checkout build in the same folder; they do not touch this
	# place.
	for binary; do
		install -D "$target/x86_64-unknown-linux-gnu/release/$binary" \
			"$CACHE/programs/$binary"
	done
}

# crates_below CRATE: the crates of this checkout that it uses, as folders.
crates_below()
{
	sed -n 's|.* path = "\.\./\([^"]*\)".*|\1|p' "$TOP/tools/$1/Cargo.toml" |
		while read -r used; do
			printf '%s\n' "$TOP/tools/$used"
		done
}

program_key()
{
	local used
	{
		printf '%s\n' "$CACHE/programs"
		rustc --version
		digest_of "$TOP/tools/$1"
		for used in $(crates_below "$1"); do
			digest_of "$used"
		done
	} | digest
}

provide_migrate()
{
	run_step migrate "migration program" "$(program_key migrate)" \
		static_program migrate iommu-migrate
}

provide_soak()
{
	run_step soak "program of random and concurrent use" "$(program_key soak)" \
		static_program soak iommu-soak
}

# image_list TREE STAGING: the files that the kernel's gen_init_cpio makes an archive of.
image_list()
{
	local guest=$TOP/tools/testing/vm/guest tree=$1 staging=$2 path directory applet
	for directory in bin dev proc sys tmp run lib tests lib/modules; do
		printf 'dir /%s 755 0 0\n' "$directory"
	done
	printf 'nod /dev/console 600 0 0 c 5 1\n'
	printf 'file /init %s 755 0 0\n' "$guest/init"
	printf 'file /lib/lib.sh %s 644 0 0\n' "$guest/lib.sh"
	printf 'file /lib/ktap_helpers.sh %s 644 0 0\n' \
		"$tree/tools/testing/selftests/kselftest/ktap_helpers.sh"
	printf 'file /lib/driver.sh %s 644 0 0\n' "$guest/driver.sh"
	printf 'file /lib/refusals.sh %s 644 0 0\n' "$guest/refusals.sh"
	printf 'file /lib/kexec.sh %s 644 0 0\n' "$guest/kexec.sh"
	printf 'file /bin/test-module %s 755 0 0\n' "$guest/module"
	printf 'file /bin/test-dma-api %s 755 0 0\n' "$guest/dma-api"
	printf 'file /bin/test-reload %s 755 0 0\n' "$guest/reload"
	printf 'file /bin/test-hotplug %s 755 0 0\n' "$guest/hotplug"
	printf 'file /bin/dirty-rate %s 755 0 0\n' "$TOP/tools/observe/dirty-rate"
	printf 'file /bin/busybox %s 755 0 0\n' "$(command -v busybox)"
	busybox --list | while read -r applet; do
		[ "$applet" = busybox ] || printf 'slink /bin/%s busybox 777 0 0\n' "$applet"
	done
	printf 'file /bin/iommu-migrate %s 755 0 0\n' "$CACHE/programs/iommu-migrate"
	printf 'file /bin/iommu-soak %s 755 0 0\n' "$CACHE/programs/iommu-soak"
	find "$staging" -mindepth 1 -printf '%y %P\n' | LC_ALL=C sort -k2 |
		while read -r applet path; do
			case $applet in
			d) printf 'dir /%s 755 0 0\n' "$path" ;;
			f) printf 'file /%s %s 755 0 0\n' "$path" "$staging/$path" ;;
			esac
		done
}

step_image()
{
	local tree=$1 into=$2 staging=$CACHE/image/staging
	need_space 1
	file_is_static "$(command -v busybox)" ||
		die "the busybox of this machine is not static: install the package busybox-static"
	rm -rf "$into.partial" "$staging"
	mkdir -p "$into.partial" "$staging/lib" "$staging/tests"
	cp -r "$tree/.overlay/modules/lib/modules" "$staging/lib/"
	find "$staging/lib" -type l -delete
	cp -r "$CACHE"/selftests/bin/* "$staging/tests/"
	strip --strip-debug "$staging"/tests/*/*
	image_list "$tree" "$staging" >"$into.partial/list"
	( cd "$tree" && usr/gen_initramfs.sh -o "$into.partial/image.cpio" "$into.partial/list" )
	cp "$tree/arch/x86/boot/bzImage" "$into.partial/bzImage"
	rm -rf "$into" "$staging"
	mv "$into.partial" "$into"
	# shellcheck disable=SC2012 # names that this script made
	ls -dt "$CACHE"/image/*/ | tail -n +$((IMAGES_KEPT + 1)) | xargs -r rm -rf
}

file_is_static()
{
	! LC_ALL=C ldd "$1" 2>&1 | grep -q '=>'
}

# image_inputs TREE [PATTERN]: all inputs of an image; the pattern is kernel_key's.
image_inputs()
{
	kernel_key "$@"
	selftests_key "$1"
	program_key migrate
	program_key soak
	digest_of "$TOP/tools/testing/vm/guest"
	digest_of "$TOP/tools/observe"
	digest_of "$HERE/guest.sh"
}

# Where the image of a tree is.
image_of()
{
	printf '%s\n' "$CACHE/image/$(image_inputs "$1" | digest)"
}

# provide_image TREE INTO
provide_image()
{
	if [ ! -f "$2/image.cpio" ]; then
		run_step image "initramfs with tests and programs" always \
			step_image "$1" "$2"
	fi
}

# machine_key TREE QEMU PATTERN: the key of a machine that runs none of this project's files
# that match the pattern.
machine_key()
{
	{ image_inputs "$1" "$3"; sha256sum <"$2"; } | digest
}

# write_products TREE IMAGE QEMU [VMM]: tells the runner where everything is, and what the
# machines of each driver, including the C drivers, depend on: while that is unchanged, their
# results stay valid.
write_products()
{
	local tree=$1 image=$2 qemu=$3 vmm=${4:-} into=$TOP/build/products
	mkdir -p "$CACHE/results"
	mkdir -p "$TOP/build" || die "$TOP/build cannot be written: make the checkout writable"
	{
		printf 'qemu=%s\n' "$qemu"
		printf 'kernel=%s\n' "$image/bzImage"
		printf 'image=%s\n' "$image/image.cpio"
		printf 'tree=%s\n' "$tree"
		printf 'results=%s\n' "$CACHE/results"
		printf 'c_key=%s\n' "$(machine_key "$tree" "$qemu" '\.rs": ')"
		printf 'rust_vtd_key=%s\n' "$(machine_key "$tree" "$qemu" 'iommu/rust/amdvi/')"
		printf 'rust_amdvi_key=%s\n' "$(machine_key "$tree" "$qemu" 'iommu/rust/vtd/')"
		printf 'debug=%s\n' "$DEBUG"
		if [ -n "$vmm" ]; then
			printf 'vmm=%s\n' "$vmm"
		fi
	} >"$into.new"
	mv "$into.new" "$into"
}
