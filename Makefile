# SPDX-License-Identifier: GPL-2.0
#
# Entry points only: each calls a program below tools/, which sets up what it
# needs by itself.

export CACHE KSRC QEMU LLVM JOBS SUITE IOMMU DEBUG FRESH ARGS V
export FUZZ_TIME FORMAT INPUT

.PHONY: help run vm check bench list lint fuzz sanitize coverage tree clean distclean

help:
	@cat tools/setup/help.txt

run:
	@tools/setup/run

vm:
	@tools/setup/run --vm

check:
	@tools/testing/check/check check

bench:
	@tools/testing/iommu_pt_bench/run $(ARGS)

list:
	@tools/testing/check/check list

lint:
	@SUITE=lint tools/testing/check/check check

fuzz:
	@tools/setup/setup host
	@tools/testing/check/fuzz

sanitize:
	@tools/setup/setup tree
	@tools/testing/check/sanitize

coverage:
	@tools/setup/setup host
	@tools/testing/check/coverage

tree:
	@tools/setup/setup tree

clean:
	@tools/setup/clean

distclean:
	@tools/setup/clean all
