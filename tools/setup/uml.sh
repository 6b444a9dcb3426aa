# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernel built as a program of the host (ARCH=um), which runs page tables at native
# speed, and the program that measures them there.

# Without clippy: 'make lint' reads what it says about the other kernel.
umake()
{
	kernel_make ARCH=um "$@"
}

step_uml_kernel()
{
	local TREE=$UML_TREE log=$CACHE/log/uml-build.log ours
	need_space 3
	umake rustavailable ||
		die "this toolchain cannot build Rust in the kernel: see the end of the log"
	configure_kernel umake "$TOP/tools/testing/uml/kernel.config"
	umake -j"$JOBS" linux 2>&1 | tee "$log" ||
		die "the UML kernel does not build:" \
			"$(grep -m1 -E 'error(\[E[0-9]+\])?:|Error [0-9]+' "$log" | cut -c1-160)"
	# Files that only this kernel compiles: a warning must fail the build.
	ours=$(grep -m1 -E '^(\./)?drivers/iommu/rust/[^ ]*: warning: ' "$log" || true)
	if [ -n "$ours" ]; then
		find "$TREE/drivers/iommu/rust" -name '*.o' -delete
		die "$ours"
	fi
	cp "$TREE/linux" "$TREE/.overlay/linux.new"
	mv "$TREE/.overlay/linux.new" "$TREE/.overlay/linux"
}

# Sets UML_TREE, a separate copy of the source, and builds in it.
provide_uml()
{
	# There is no debug kernel of this kind.
	# shellcheck disable=SC2034 # provide_tree reads it
	local TREE MANIFEST key DEBUG=
	provide_tree uml
	UML_TREE=$TREE
	key=$(
		{
			printf '%s\n' "$MANIFEST" "$SOURCE" "$LLVM" "$RUST_LIB_SRC"
			cat "$TREE/.overlay/sync.serial" 2>/dev/null || true
			rustc --version
			bindgen --version
			cat "$TOP/tools/testing/uml/kernel.config" "$HERE/uml.sh"
		} | digest
	)
	run_step uml-kernel "Linux $(kernel_version "$UML_TREE") as a program" "$key" \
		step_uml_kernel
}

step_bench()
{
	local into=$CACHE/bench from=$TOP/tools/testing/iommu_pt_bench
	# iommufd's interface of this kernel, not that of the host's headers.
	mkdir -p "$into/include/linux"
	cp "$SOURCE/include/uapi/linux/iommufd.h" "$into/include/linux/"
	# Static: its root file system holds nothing else.
	gcc -O2 -static -Wall -Wextra -Werror -I"$into/include" -I"$SOURCE/drivers/iommu/iommufd" \
		-o "$into/bench.new" "$from/bench.c" "$from/mock.c" ||
		die "the benchmark does not build: $(grep -m1 'error:' "$CACHE/log/bench.log")"
	mv "$into/bench.new" "$into/bench"
}

provide_bench()
{
	local key
	key=$(
		{
			gcc -dumpfullversion
			cat "$TOP"/tools/testing/iommu_pt_bench/*.[ch] \
				"$TOP/drivers/iommu/rust/bench/abi.h" \
				"$SOURCE/include/uapi/linux/iommufd.h" \
				"$SOURCE/drivers/iommu/iommufd/iommufd_test.h"
		} | digest
	)
	run_step bench "the benchmark's program" "$key" step_bench
}

# Tells the runners where everything is.
write_uml_products()
{
	local into=$TOP/build/products.uml
	mkdir -p "$TOP/build" || die "$TOP/build cannot be written: make the checkout writable"
	{
		printf 'kernel=%s\n' "$UML_TREE/.overlay/linux"
		printf 'bench=%s\n' "$CACHE/bench/bench"
		printf 'tree=%s\n' "$UML_TREE"
	} >"$into.new"
	mv "$into.new" "$into"
}
