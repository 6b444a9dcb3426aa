# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernel built as a program of the host (ARCH=um), which runs page tables at native
# speed, and the program that measures them there.

step_uml_kernel()
{
	local tree=$1 log=$CACHE/log/uml-build.log ours
	need_space 3
	# Without clippy: 'make lint' reads what it says about the other kernel.
	configure_kernel "$tree" "$tree" "$TOP/tools/testing/uml/kernel.config" ARCH=um
	# Of the examples in the documentation, those that SUITE=doctests runs: all of them are one
	# crate, which takes as long to compile as a third of this kernel.
	build_kernel "$log" "$tree" ARCH=um RUSTDOC='rustdoc --test-args iommu' linux
	# Files that only this kernel compiles: a warning must fail the build.
	ours=$(our_warnings "$log" drivers/iommu/rust/)
	if [ -n "$ours" ]; then
		find "$tree/drivers/iommu/rust" -name '*.o' -delete
		die "$(head -n1 <<<"$ours")"
	fi
	cp "$tree/linux" "$tree/.overlay/linux.new"
	mv "$tree/.overlay/linux.new" "$tree/.overlay/linux"
}

provide_uml()
{
	local tree=$1 key
	key=$(
		{
			build_inputs "$tree"
			cat "$tree/.overlay/manifest.json" "$TOP/tools/testing/uml/kernel.config" \
				"$HERE/uml.sh"
		} | digest
	)
	run_step uml-kernel "Linux $(kernel_version "$tree") as a program" "$key" \
		step_uml_kernel "$tree"
}

step_bench()
{
	local source into=$CACHE/bench from=$TOP/tools/testing/iommu_pt_bench
	source=$(kernel_source)
	# iommufd's interface of this kernel, not that of the host's headers.
	mkdir -p "$into/include/linux"
	cp "$source/include/uapi/linux/iommufd.h" "$into/include/linux/"
	# Static: its root file system holds nothing else.
	gcc -O2 -static -Wall -Wextra -Werror -I"$into/include" -I"$source/drivers/iommu/iommufd" \
		-o "$into/bench.new" "$from/bench.c" "$from/mock.c" ||
		die "the benchmark does not build: $(grep -m1 'error:' "$CACHE/log/bench.log")"
	mv "$into/bench.new" "$into/bench"
}

provide_bench()
{
	local key source
	source=$(kernel_source)
	key=$(
		{
			gcc -dumpfullversion
			cat "$TOP"/tools/testing/iommu_pt_bench/*.[ch] \
				"$TOP/drivers/iommu/rust/testing/bench/abi.h" \
				"$source/include/uapi/linux/iommufd.h" \
				"$source/drivers/iommu/iommufd/iommufd_test.h"
		} | digest
	)
	run_step bench "the benchmark's program" "$key" step_bench
}

# Tells the runners where everything is.
write_uml_products()
{
	local tree=$1 into=$TOP/build/products.uml
	mkdir -p "$TOP/build" || die "$TOP/build cannot be written: make the checkout writable"
	{
		printf 'kernel=%s\n' "$tree/.overlay/linux"
		printf 'bench=%s\n' "$CACHE/bench/bench"
		printf 'tree=%s\n' "$tree"
	} >"$into.new"
	mv "$into.new" "$into"
}
