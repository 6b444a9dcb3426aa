# SPDX-License-Identifier: GPL-2.0
#
# Entry points only: each calls a program below tools/, which sets up what it
# needs by itself.

export CACHE KSRC QEMU LLVM JOBS SUITE IOMMU DEBUG CONFIG ALL SPLIT FRESH ARGS V
export FUZZ_TIME FORMAT INPUT TIME

.PHONY: help setup run vm check soak bench list lint fuzz sanitize coverage tree series deb clean distclean

help:
	@cat tools/setup/help.txt

setup:
	@tools/setup/setup all

run:
	@tools/setup/run

vm:
	@tools/setup/run --vm

check:
	@tools/testing/harness/run harness.check check

soak:
	@tools/testing/harness/run harness.soak $(ARGS)

bench:
	@tools/testing/harness/run iommu_pt_bench $(ARGS)

list:
	@tools/testing/harness/run harness.check list

lint:
	@SUITE=lint tools/testing/harness/run harness.check check

fuzz:
	@tools/setup/setup host
	@tools/testing/harness/host/fuzz

sanitize:
	@tools/setup/setup tree
	@tools/testing/harness/host/sanitize

coverage:
	@tools/setup/setup host
	@tools/testing/harness/host/coverage

tree:
	@tools/setup/setup tree

series:
	@tools/setup/setup tree
	@tools/series/series write

deb:
	@tools/setup/setup deb

clean:
	@tools/setup/clean

distclean:
	@tools/setup/clean all
