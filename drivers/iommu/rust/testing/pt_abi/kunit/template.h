/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Does what generic_pt/fmt/iommu_template.h does, for the suite of
 * kunit_iommu_pt.h only, on the Rust tables.  The suite of kunit_generic_pt.h
 * tests the C macros of a format.
 *
 * Comes after the header of the format.  PT_FMT_VARIANT must end with "rust", as
 * the functions of <linux/rust_iommu_pt.h> do.  PT_SUPPORTED_FEATURES has to be
 * that of the C format: the suite asks for all of it.
 */
#include <linux/args.h>
#include <linux/rust_iommu_pt.h>
#include <linux/stringify.h>

#define PTPFX_RAW CONCATENATE(CONCATENATE(PT_FMT, _), PT_FMT_VARIANT)
#define PTPFX CONCATENATE(PTPFX_RAW, _)

#include "../../../../generic_pt/pt_common.h"
#include "../../../../generic_pt/kunit_iommu_pt.h"

/* The suite declares this function, and kunit_generic_pt.h defines it. */
static void do_map(struct kunit *test, pt_vaddr_t va, pt_oaddr_t pa, pt_vaddr_t len)
{
	struct kunit_iommu_priv *priv = test->priv;
	int ret;

	KUNIT_ASSERT_EQ(test, len, (size_t)len);

	ret = iommu_map(&priv->domain, va, pa, len, IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
	KUNIT_ASSERT_NO_ERRNO_FN(test, "map_pages", ret);
}
