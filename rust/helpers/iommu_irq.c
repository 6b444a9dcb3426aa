// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupt domains between the vector domain and the MSIs of devices, for a driver whose
 * units remap interrupts by a table of each device (rust/kernel/iommu/irq).
 *
 * The operations are here, and not in the driver: interrupt core and other code may look
 * at them at any time, and a module can be unloaded. They call the driver only for
 * interrupts that exist, and while one does, its device is under control and holds the
 * module: the core frees the interrupts of a device before it takes the device out.
 *
 * The PCI core has buses, and what is found on them, inherit the domain of the bridge
 * above. Such a domain is that of one device, so the driver has it replaced at once.
 *
 * The number of an interrupt in such a domain (hwirq) is the index of its entry, which
 * is also what its message says.
 *
 * Neither the vector domain's internals nor the APIC are exported to modules: what calls
 * these functions must be part of the kernel crate, and not be inlined into drivers.
 */

#if defined(CONFIG_PCI_MSI) && defined(CONFIG_X86_LOCAL_APIC)

#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/irqchip/irq-msi-lib.h>
#include <linux/msi.h>
#include <linux/pci.h>
#include <asm/apic.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>
#include <asm/msi.h>

/* Of a domain: its host data. */
struct rust_irq_parent {
	void *table;
	const struct rust_irq_table_ops *ops;
};

static int rust_irq_write(struct irq_data *data)
{
	struct rust_irq_parent *parent = data->domain->host_data;
	struct irq_cfg *cfg = irqd_cfg(data);

	return parent->ops->set(parent->table, data->hwirq, cfg->vector, cfg->dest_apicid,
				apic->dest_mode_logical);
}

/*
 * The entry changes after the vector domain has chosen a new vector. The old one stays
 * until an interrupt that was on its way has been handled.
 *
 * If the unit does not answer, the device is cut off, and both vectors stay: the new one
 * is in the entry, and the old one may be what the unit knows. Further moves are -EBUSY.
 */
static int rust_irq_set_affinity(struct irq_data *data, const struct cpumask *mask, bool force)
{
	struct irq_data *above = data->parent_data;
	int error;

	error = above->chip->irq_set_affinity(above, mask, force);
	if (error < 0 || error == IRQ_SET_MASK_OK_DONE)
		return error;
	error = rust_irq_write(data);
	if (error)
		return error;
	vector_schedule_cleanup(irqd_cfg(data));
	/* The message does not change. */
	return IRQ_SET_MASK_OK_DONE;
}

static void rust_irq_compose_msi_msg(struct irq_data *data, struct msi_msg *msg)
{
	memset(msg, 0, sizeof(*msg));
	msg->arch_addr_lo.base_address = X86_MSI_BASE_ADDRESS_LOW;
	msg->address_hi = X86_MSI_BASE_ADDRESS_HIGH;
	msg->data = data->hwirq;
}

static struct irq_chip rust_irq_chip = {
	.name			= "Rust-IR",
	.irq_ack		= apic_ack_irq,
	.irq_set_affinity	= rust_irq_set_affinity,
	.irq_compose_msi_msg	= rust_irq_compose_msi_msg,
};

static int rust_irq_alloc(struct irq_domain *domain, unsigned int virq, unsigned int count,
			  void *arg)
{
	struct rust_irq_parent *parent = domain->host_data;
	struct irq_alloc_info *info = arg;
	int error, index;
	bool is_msi;

	if (!info || (info->type != X86_IRQ_ALLOC_TYPE_PCI_MSI &&
		      info->type != X86_IRQ_ALLOC_TYPE_PCI_MSIX))
		return -EINVAL;
	is_msi = info->type == X86_IRQ_ALLOC_TYPE_PCI_MSI;

	error = irq_domain_alloc_irqs_parent(domain, virq, count, arg);
	if (error < 0)
		return error;
	/* A function with several MSIs puts the number of each into the low bits of the data. */
	index = parent->ops->allocate(parent->table, count, is_msi);
	if (index < 0) {
		irq_domain_free_irqs_parent(domain, virq, count);
		return index;
	}
	for (unsigned int i = 0; i < count; i++)
		irq_domain_set_hwirq_and_chip(domain, virq + i, index + i, &rust_irq_chip, NULL);
	return 0;
}

static void rust_irq_free(struct irq_domain *domain, unsigned int virq, unsigned int count)
{
	struct rust_irq_parent *parent = domain->host_data;
	struct irq_data *data;

	for (unsigned int i = 0; i < count; i++) {
		data = irq_domain_get_irq_data(domain, virq + i);
		if (data)
			parent->ops->free(parent->table, data->hwirq);
	}
	irq_domain_free_irqs_common(domain, virq, count);
}

static int rust_irq_activate(struct irq_domain *domain, struct irq_data *data, bool reserve)
{
	struct rust_irq_parent *parent = domain->host_data;
	int error = rust_irq_write(data);

	/* The vector is taken back, and the entry must not name it. */
	if (error)
		parent->ops->clear(parent->table, data->hwirq);
	return error;
}

static void rust_irq_deactivate(struct irq_domain *domain, struct irq_data *data)
{
	struct rust_irq_parent *parent = domain->host_data;

	/* A unit that does not answer lets its devices send nothing any more. */
	parent->ops->clear(parent->table, data->hwirq);
}

/* The address tells such a domain: what names it is not inlined (no __rust_helper). */
static const struct irq_domain_ops rust_irq_domain_ops = {
	.alloc		= rust_irq_alloc,
	.free		= rust_irq_free,
	.activate	= rust_irq_activate,
	.deactivate	= rust_irq_deactivate,
};

/* The code for MSIs of x86 knows the parents of MSI domains by their token. */
static const struct msi_parent_ops rust_irq_msi_parent_ops = {
	.supported_flags	= X86_VECTOR_MSI_FLAGS_SUPPORTED | MSI_FLAG_MULTI_PCI_MSI,
	.bus_select_token	= DOMAIN_BUS_AMDVI,
	.bus_select_mask	= MATCH_PCI_MSI,
	.prefix			= "IR-",
	.init_dev_msi_info	= msi_parent_init_dev_msi_info,
};

/*
 * Whether interrupts of devices come from the vector domain, and an entry whose
 * destination is at most @last can name its CPUs. Those with an id that the APIC driver
 * refuses stay off.
 */
__rust_helper bool rust_helper_rust_irq_can_remap(u32 last)
{
	unsigned int cpu;

	if (!x86_vector_domain || !irq_domain_is_msi_parent(x86_vector_domain))
		return false;
	for_each_possible_cpu(cpu) {
		u32 id = cpu_physical_id(cpu);

		if (id > last && id != BAD_APICID && apic_id_valid(id))
			return false;
	}
	return true;
}

/*
 * A domain for the interrupts of the devices that share @table. May sleep. @ops is called
 * with @table until rust_irq_remove_parent(). @name is copied.
 */
struct irq_domain *
rust_helper_rust_irq_new_parent(const char *name, void *table,
				const struct rust_irq_table_ops *ops)
{
	struct rust_irq_parent *parent __free(kfree) = kzalloc_obj(*parent);
	struct irq_domain_info info = {
		.ops		= &rust_irq_domain_ops,
		.domain_flags	= IRQ_DOMAIN_FLAG_ISOLATED_MSI,
		.host_data	= parent,
		.parent		= x86_vector_domain,
	};
	struct irq_domain *domain;

	if (!parent)
		return NULL;
	parent->table = table;
	parent->ops = ops;
	info.fwnode = irq_domain_alloc_named_fwnode(name);
	if (!info.fwnode)
		return NULL;
	domain = msi_create_parent_irq_domain(&info, &rust_irq_msi_parent_ops);
	if (!domain) {
		irq_domain_free_fwnode(info.fwnode);
		return NULL;
	}
	retain_and_null_ptr(parent);
	return domain;
}

/* No device has the domain any more, and no interrupt is left. May sleep. */
__rust_helper void rust_helper_rust_irq_remove_parent(struct irq_domain *domain)
{
	struct rust_irq_parent *parent = domain->host_data;
	struct fwnode_handle *fwnode = domain->fwnode;

	irq_domain_remove(domain);
	irq_domain_free_fwnode(fwnode);
	kfree(parent);
}

/* Whether the MSIs of the device, should it get any, come from the vector domain itself. */
__rust_helper bool rust_helper_rust_irq_has_vector_parent(struct device *dev)
{
	return dev_get_msi_domain(dev) == x86_vector_domain;
}

/* Whether the device has MSIs, or a domain for them. */
__rust_helper bool rust_helper_rust_irq_has_msis(struct device *dev)
{
	return READ_ONCE(dev->msi.data);
}

/* Whether the MSIs of the device, should it get any, come from such a domain. */
bool rust_helper_rust_irq_has_parent(struct device *dev)
{
	struct irq_domain *domain = dev_get_msi_domain(dev);

	return domain && domain->ops == &rust_irq_domain_ops;
}

/* Gives a device or a bus the vector domain if it has such a domain. */
static inline void rust_irq_reset(struct device *dev)
{
	if (rust_helper_rust_irq_has_parent(dev))
		dev_set_msi_domain(dev, x86_vector_domain);
}

/* For a device that was just found: it and its bus have the domain of a bridge. */
__rust_helper void rust_helper_rust_irq_disinherit(struct device *dev)
{
	if (dev_is_pci(dev))
		rust_irq_reset(&to_pci_dev(dev)->bus->dev);
	if (!rust_helper_rust_irq_has_msis(dev))
		rust_irq_reset(dev);
}

/*
 * Later MSIs of the device come from @domain, or from the vector domain if @domain is NULL.
 * In that case, a bridge's secondary bus and the virtual buses for VFs below it get the
 * vector domain too, and the caller holds pci_lock_rescan_remove().
 */
__rust_helper void rust_helper_rust_irq_set_parent(struct device *dev, struct irq_domain *domain)
{
	struct pci_bus *bus, *child;

	dev_set_msi_domain(dev, domain ?: x86_vector_domain);
	if (domain || !dev_is_pci(dev))
		return;
	bus = to_pci_dev(dev)->subordinate;
	if (!bus)
		return;
	rust_irq_reset(&bus->dev);
	list_for_each_entry(child, &bus->children, node)
		rust_irq_reset(&child->dev);
}

#endif /* CONFIG_PCI_MSI && CONFIG_X86_LOCAL_APIC */
