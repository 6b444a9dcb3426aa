/* SPDX-License-Identifier: GPL-2.0 */
/*
 * generic_pt/fmt/iommu_template.h for the suite of kunit_iommu_pt.h alone, on
 * the Rust tables.  That of kunit_generic_pt.h tests the C macros of a format,
 * and knows the formats by their names.
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

/* The suite declares it and has it from kunit_generic_pt.h. */
static void do_map(struct kunit *test, pt_vaddr_t va, pt_oaddr_t pa, pt_vaddr_t len)
{
	struct kunit_iommu_priv *priv = test->priv;
	int ret;

	KUNIT_ASSERT_EQ(test, len, (size_t)len);

	ret = iommu_map(&priv->domain, va, pa, len, IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
	KUNIT_ASSERT_NO_ERRNO_FN(test, "map_pages", ret);
}
