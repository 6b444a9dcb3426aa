// SPDX-License-Identifier: GPL-2.0
/*
 * Asks for Access Control Services (ACS) if a driver of this folder is built in.
 *
 * Groups of functions depend on ACS. The PCI core enables it when a port gets its driver
 * (pci_enable_acs()), if it was asked to before. The C driver for VT-d asks only where it
 * remaps DMA, and neither asks if it is not built. A module comes too late: the ports have
 * their drivers, and enabling it then would redirect what functions send to each other.
 */
#include <linux/acpi.h>
#include <linux/init.h>
#include <linux/pci.h>

static bool __init has_table(char *signature)
{
	struct acpi_table_header *table;

	if (ACPI_FAILURE(acpi_get_table(signature, 0, &table)))
		return false;
	acpi_put_table(table);
	return true;
}

static int __init rust_iommu_request_acs(void)
{
	if ((IS_BUILTIN(CONFIG_RUST_INTEL_VTD) && has_table(ACPI_SIG_DMAR)) ||
	    (IS_BUILTIN(CONFIG_RUST_AMD_VI) && has_table(ACPI_SIG_IVRS)))
		pci_request_acs();
	return 0;
}

/* Before the PCI buses are scanned (subsys_initcall). */
arch_initcall(rust_iommu_request_acs);
