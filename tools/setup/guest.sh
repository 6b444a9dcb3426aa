# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the guest runs: the kernel's own tests and this project's, the migration program, and
# the image that holds them.

UPSTREAM_TESTS="vfio/vfio_pci_driver_test vfio/vfio_dma_mapping_test
		vfio/vfio_iommufd_setup_test vfio/vfio_pci_device_test
		iommu/iommufd iommu/iommufd_fail_nth"
IMAGES_KEPT=4

# Builds one directory of selftests of the tree, static, out of the tree.
# tools/include goes before the installed headers, which hide its helpers.
build_selftests()
{
	make -s -C "$TREE/tools/testing/selftests/$1" OUTPUT="$SELFTESTS/$1" LLVM="$LLVM" \
		KHDR_INCLUDES="-I$TREE/tools/include -isystem $TREE/usr/include" \
		LDFLAGS=-static EXTRA_CFLAGS=-O2 -j"$JOBS" ||
		die "the selftests of $1 do not build:" \
			"$(grep -m1 -E 'error:|Error ' "$CACHE/log/selftests.log")"
}

step_selftests()
{
	local name
	rm -rf "$SELFTESTS"
	for name in vfio iommu iommu_rust; do
		mkdir -p "$SELFTESTS/$name" "$SELFTESTS/bin/$name"
		build_selftests "$name"
	done
	for name in $UPSTREAM_TESTS; do
		cp "$SELFTESTS/$name" "$SELFTESTS/bin/${name%/*}/"
	done
	find "$SELFTESTS/iommu_rust" -maxdepth 1 -type f -perm -u+x \
		-exec cp {} "$SELFTESTS/bin/iommu_rust/" \;
}

provide_selftests()
{
	SELFTESTS=$CACHE/selftests
	SELFTESTS_KEY=$(
		{
			printf '%s\n' "$SOURCE" "$LLVM"
			cat "$TREE/.overlay/sync.serial" 2>/dev/null || true
			digest_of "$TREE/tools/testing/selftests/iommu_rust"
			digest_of "$HERE/guest.sh"
		} | digest
	)
	run_step selftests "kernel selftests, upstream's and ours" "$SELFTESTS_KEY" step_selftests
}

# static_program CRATE BINARY...: builds a crate of tools/, and leaves its binaries in
# the cache.
static_program()
{
	local crate=$1 target=$CACHE/cargo/$1 binary
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

program_key()
{
	{
		printf '%s\n' "$CACHE/programs"
		rustc --version
		digest_of "$TOP/tools/$1"
	} | digest
}

step_migrate()
{
	static_program migrate iommu-migrate
}

provide_migrate()
{
	MIGRATE=$CACHE/programs/iommu-migrate
	MIGRATE_KEY=$(program_key migrate)
	run_step migrate "migration program" "$MIGRATE_KEY" step_migrate
}

# The list of files that the kernel's gen_init_cpio makes an archive of.
image_list()
{
	local guest=$TOP/tools/testing/vm/guest staging=$1 path directory applet
	for directory in bin dev proc sys tmp run lib tests lib/modules; do
		printf 'dir /%s 755 0 0\n' "$directory"
	done
	printf 'nod /dev/console 600 0 0 c 5 1\n'
	printf 'file /init %s 755 0 0\n' "$guest/init"
	printf 'file /lib/lib.sh %s 644 0 0\n' "$guest/lib.sh"
	printf 'file /lib/ktap_helpers.sh %s 644 0 0\n' \
		"$TREE/tools/testing/selftests/kselftest/ktap_helpers.sh"
	printf 'file /lib/driver.sh %s 644 0 0\n' "$guest/driver.sh"
	printf 'file /lib/refusals.sh %s 644 0 0\n' "$guest/refusals.sh"
	printf 'file /bin/test-module %s 755 0 0\n' "$guest/module"
	printf 'file /bin/test-dma-api %s 755 0 0\n' "$guest/dma-api"
	printf 'file /bin/busybox %s 755 0 0\n' "$(command -v busybox)"
	busybox --list | while read -r applet; do
		[ "$applet" = busybox ] || printf 'slink /bin/%s busybox 777 0 0\n' "$applet"
	done
	printf 'file /bin/iommu-migrate %s 755 0 0\n' "$MIGRATE"
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
	local into=$CACHE/image/$IMAGE_KEY staging=$CACHE/image/staging
	need_space 1
	file_is_static "$(command -v busybox)" ||
		die "the busybox of this machine is not static: install the package busybox-static"
	rm -rf "$into.partial" "$staging"
	mkdir -p "$into.partial" "$staging/lib" "$staging/tests"
	cp -r "$TREE/.overlay/modules/lib/modules" "$staging/lib/"
	find "$staging/lib" -type l -delete
	cp -r "$SELFTESTS"/bin/* "$staging/tests/"
	strip --strip-debug "$staging"/tests/*/*
	image_list "$staging" >"$into.partial/list"
	( cd "$TREE" && usr/gen_initramfs.sh -o "$into.partial/image.cpio" "$into.partial/list" )
	cp "$TREE/arch/x86/boot/bzImage" "$into.partial/bzImage"
	rm -rf "$into" "$staging"
	mv "$into.partial" "$into"
	# shellcheck disable=SC2012 # names that this script made
	ls -dt "$CACHE"/image/*/ | tail -n +$((IMAGES_KEPT + 1)) | xargs -r rm -rf
}

file_is_static()
{
	! LC_ALL=C ldd "$1" 2>&1 | grep -q '=>'
}

# The key of all inputs of an image; the argument is the kernel's key.
image_inputs()
{
	printf '%s\n' "$1" "$SELFTESTS_KEY" "$MIGRATE_KEY"
	digest_of "$TOP/tools/testing/vm/guest"
	digest_of "$HERE/guest.sh"
}

provide_image()
{
	IMAGE_KEY=$(image_inputs "$KERNEL_KEY" | digest)
	if [ ! -f "$CACHE/image/$IMAGE_KEY/image.cpio" ]; then
		run_step image "initramfs with tests and migration program" always step_image
	fi
}

# The key of a machine that runs none of this project's files that match a pattern.
machine_key_without()
{
	{ image_inputs "$(kernel_key_without "$1")"; sha256sum <"$QEMU"; } | digest
}

# Tells the runner where everything is, and what the machines of each driver, including the
# C drivers, depend on: while that is unchanged, their results stay valid.
write_products()
{
	local into=$TOP/build/products
	mkdir -p "$CACHE/results"
	mkdir -p "$TOP/build" || die "$TOP/build cannot be written: make the checkout writable"
	{
		printf 'qemu=%s\n' "$QEMU"
		printf 'kernel=%s\n' "$CACHE/image/$IMAGE_KEY/bzImage"
		printf 'image=%s\n' "$CACHE/image/$IMAGE_KEY/image.cpio"
		printf 'tree=%s\n' "$TREE"
		printf 'results=%s\n' "$CACHE/results"
		printf 'c_key=%s\n' "$(machine_key_without '\.rs": ')"
		printf 'rust_vtd_key=%s\n' "$(machine_key_without 'iommu/rust/amdvi/')"
		printf 'rust_amdvi_key=%s\n' "$(machine_key_without 'iommu/rust/vtd/')"
		printf 'debug=%s\n' "$DEBUG"
		if [ -n "${VMM_IMAGE:-}" ]; then
			printf 'vmm=%s\n' "$VMM_IMAGE"
		fi
	} >"$into.new"
	mv "$into.new" "$into"
}
