// SPDX-License-Identifier: GPL-2.0
/*
 * A PCI Express function that writes memory by itself, and whose state can be moved
 * to another one of its kind: for tests of IOMMUs and of migration.
 *
 * Write number n (1, 2, ...) is one of 16 bytes at the start of the page
 * mix(SEED + n) % (LENGTH / 4096) of the memory at BASE, and holds n and mix(SEED ^ n):
 * what memory holds follows from SEED and COUNTER.
 *
 * Registers are little endian, of 8 bytes, accessed by 4 or 8. BAR 0:
 *
 *   0x00 ID       read-only, PAGE_WRITER_ID
 *   0x08 CONTROL  bit 0, RUN: 0 -> 1 sets COUNTER, FAILED, FAILED_ADDRESS, STATUS and
 *                 JOURNAL to 0; RUN stays 0 if BASE, LENGTH or RATE is not as it should
 *                 be. While it is 1, BASE to PROGRESS are read-only
 *   0x10 STATUS   read-only, bit 0: it writes; bit 1: a write failed; bit 2: LIMIT
 *                 was reached
 *   0x18 BASE     where to write: a multiple of 4096
 *   0x20 LENGTH   a multiple of 4096, not 0
 *   0x28 SEED
 *   0x30 RATE     writes in a second: 1 to 1000000
 *   0x38 LIMIT    writes after which RUN becomes 0; 0: none
 *   0x40 COUNTER  read-only, the number of the last write
 *   0x48 PROGRESS vector 0 when COUNTER becomes a multiple of it; 0: never
 *   0x50 FAILED   read-only, how many writes failed. They count as the others do, stop
 *                 nothing, and each is told by vector 1
 *   0x58 FAILED_ADDRESS  read-only, where the first of them should have gone
 *
 * BAR 2, the half that is meant for the guest:
 *
 *   0x00000       MSI-X table
 *   0x08000       MSI-X PBA
 *   0x10000       JOURNAL, read-only: entry n % 8192 is the page of write n
 *
 * and the half that is meant for its host:
 *
 *   0x20000 MODE  0: run; 1: quiesced, no DMA and no interrupt begins; 2: stopped, as
 *                 1, and writes to BAR 0 are ignored
 *   0x20008 STATE_VERSION  read-only
 *   0x20010 STATE_SIZE     read-only, bytes of a state
 *   0x20018 COMMAND        1, SAVE: write the state into WINDOW; 2, LOAD: take the
 *                          first STATE_LENGTH bytes of it, in MODE 2 only
 *   0x20020 RESULT         read-only, of the last command: PageWriterResult
 *   0x20028 STATE_LENGTH   bytes in WINDOW, set by SAVE
 *   0x28000 WINDOW         96 KiB
 *
 * A state has a version and a checksum: page-writer-state.c. A LOAD that is refused
 * changes nothing but RESULT.
 *
 * Nothing is written, and COUNTER stands still, while the function is no bus master.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "migration/vmstate.h"
#include "page-writer.h"

/* Of QEMU's vendor ID, next to edu, pasid-dma and iommu-stall */
#define PAGE_WRITER_DEVICE_ID       0x11f1

#define PAGE_WRITER_REGS_SIZE       (4 * KiB)
#define PAGE_WRITER_MSIX_TABLE      0
#define PAGE_WRITER_MSIX_PBA        0x8000
#define PAGE_WRITER_JOURNAL         0x10000
#define PAGE_WRITER_HOST            0x20000
#define PAGE_WRITER_WINDOW          0x28000
#define PAGE_WRITER_BAR_SIZE        (PAGE_WRITER_WINDOW + PAGE_WRITER_WINDOW_SIZE)

/* From PAGE_WRITER_HOST on, in words of 8 bytes */
enum {
    PAGE_WRITER_HOST_MODE,
    PAGE_WRITER_HOST_STATE_VERSION,
    PAGE_WRITER_HOST_STATE_SIZE,
    PAGE_WRITER_HOST_COMMAND,
    PAGE_WRITER_HOST_RESULT,
    PAGE_WRITER_HOST_STATE_LENGTH,
};

#define PAGE_WRITER_SAVE            1
#define PAGE_WRITER_LOAD            2

static PageWriterResult page_writer_command(PageWriterState *s,
                                            uint64_t command)
{
    switch (command) {
    case PAGE_WRITER_SAVE:
        return page_writer_save(s);
    case PAGE_WRITER_LOAD:
        return page_writer_load(s);
    }
    return PAGE_WRITER_NOT_POSSIBLE;
}

/* The word that holds an address is read, and written, as a whole. */
static uint64_t page_writer_part(uint64_t word, hwaddr addr, unsigned size)
{
    return extract64(word, 8 * (addr % 8), 8 * size);
}

static uint64_t page_writer_merge(uint64_t word, hwaddr addr, uint64_t val,
                                  unsigned size)
{
    return deposit64(word, 8 * (addr % 8), 8 * size, val);
}

static uint64_t page_writer_reg(PageWriterState *s, hwaddr addr)
{
    uint64_t val = addr / 8 < PAGE_WRITER_REGS ? s->regs[addr / 8] : 0;

    if (addr / 8 == PAGE_WRITER_REG_STATUS && page_writer_runs(s) &&
        page_writer_is_master(s)) {
        val |= PAGE_WRITER_WRITES;
    }
    return val;
}

static uint64_t page_writer_regs_read(void *opaque, hwaddr addr, unsigned size)
{
    return page_writer_part(page_writer_reg(opaque, addr), addr, size);
}

static void page_writer_regs_write(void *opaque, hwaddr addr, uint64_t val,
                                   unsigned size)
{
    PageWriterState *s = opaque;

    if (s->mode == PAGE_WRITER_MODE_STOPPED) {
        return;
    }
    val = page_writer_merge(page_writer_reg(s, addr), addr, val, size);
    switch (addr / 8) {
    case PAGE_WRITER_REG_CONTROL:
        page_writer_control(s, val);
        break;
    case PAGE_WRITER_REG_BASE:
    case PAGE_WRITER_REG_LENGTH:
    case PAGE_WRITER_REG_SEED:
    case PAGE_WRITER_REG_RATE:
    case PAGE_WRITER_REG_LIMIT:
    case PAGE_WRITER_REG_PROGRESS:
        if (!(s->regs[PAGE_WRITER_REG_CONTROL] & PAGE_WRITER_RUN)) {
            s->regs[addr / 8] = val;
        }
        break;
    }
}

static uint64_t page_writer_bar_word(PageWriterState *s, hwaddr addr)
{
    if (addr >= PAGE_WRITER_WINDOW) {
        return ldq_le_p(s->window + (addr & ~7ULL) - PAGE_WRITER_WINDOW);
    }
    if (addr < PAGE_WRITER_HOST) {
        return addr < PAGE_WRITER_JOURNAL ? 0 :
               s->journal[(addr - PAGE_WRITER_JOURNAL) / 8];
    }
    switch ((addr - PAGE_WRITER_HOST) / 8) {
    case PAGE_WRITER_HOST_MODE:
        return s->mode;
    case PAGE_WRITER_HOST_STATE_VERSION:
        return PAGE_WRITER_STATE_VERSION;
    case PAGE_WRITER_HOST_STATE_SIZE:
        return PAGE_WRITER_STATE_SIZE;
    case PAGE_WRITER_HOST_RESULT:
        return s->result;
    case PAGE_WRITER_HOST_STATE_LENGTH:
        return s->state_length;
    }
    return 0;
}

static uint64_t page_writer_bar_read(void *opaque, hwaddr addr, unsigned size)
{
    return page_writer_part(page_writer_bar_word(opaque, addr), addr, size);
}

static void page_writer_bar_write(void *opaque, hwaddr addr, uint64_t val,
                                  unsigned size)
{
    PageWriterState *s = opaque;

    if (addr < PAGE_WRITER_HOST) {
        return;
    }
    val = page_writer_merge(page_writer_bar_word(s, addr), addr, val, size);
    if (addr >= PAGE_WRITER_WINDOW) {
        stq_le_p(s->window + (addr & ~7ULL) - PAGE_WRITER_WINDOW, val);
        return;
    }
    switch ((addr - PAGE_WRITER_HOST) / 8) {
    case PAGE_WRITER_HOST_MODE:
        page_writer_set_mode(s, val);
        break;
    case PAGE_WRITER_HOST_COMMAND:
        /* The upper half, written by itself, is no command. */
        if (val) {
            s->result = page_writer_command(s, val);
        }
        break;
    case PAGE_WRITER_HOST_STATE_LENGTH:
        s->state_length = val;
        break;
    }
}

static const MemoryRegionOps page_writer_regs_ops = {
    .read = page_writer_regs_read,
    .write = page_writer_regs_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 8 },
};

static const MemoryRegionOps page_writer_bar_ops = {
    .read = page_writer_bar_read,
    .write = page_writer_bar_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 8 },
};

static void page_writer_reset(DeviceState *dev)
{
    PageWriterState *s = PAGE_WRITER(dev);

    timer_del(s->timer);
    memset(s->regs, 0, sizeof(s->regs));
    s->regs[PAGE_WRITER_REG_ID] = PAGE_WRITER_ID;
    memset(s->journal, 0, sizeof(s->journal));
    s->pending = 0;
    s->mode = PAGE_WRITER_MODE_RUN;
    s->result = PAGE_WRITER_DONE;
    s->state_length = 0;
    memset(s->window, 0, sizeof(s->window));
}

static void page_writer_write_config(PCIDevice *pdev, uint32_t addr,
                                     uint32_t val, int len)
{
    uint8_t af = PAGE_WRITER(pdev)->af_cap;

    pci_default_write_config(pdev, addr, val, len);
    if (!af) {
        pcie_cap_flr_write_config(pdev, addr, val, len);
    } else if (pdev->config[af + PCI_AF_CTRL] & PCI_AF_CTRL_FLR) {
        pdev->config[af + PCI_AF_CTRL] = 0;
        pci_device_reset(pdev);
    }
}

/* Function-level reset on conventional PCI: the Advanced Features capability */
static bool page_writer_add_af(PageWriterState *s, Error **errp)
{
    PCIDevice *pdev = PCI_DEVICE(s);
    int af = pci_add_capability(pdev, PCI_CAP_ID_AF, 0, PCI_CAP_AF_SIZEOF,
                                errp);

    if (af < 0) {
        return false;
    }
    pdev->config[af + PCI_AF_LENGTH] = PCI_CAP_AF_SIZEOF;
    pdev->config[af + PCI_AF_CAP] = PCI_AF_CAP_TP | PCI_AF_CAP_FLR;
    pdev->wmask[af + PCI_AF_CTRL] = PCI_AF_CTRL_FLR;
    s->af_cap = af;
    return true;
}

static void page_writer_realize(PCIDevice *pdev, Error **errp)
{
    PageWriterState *s = PAGE_WRITER(pdev);
    unsigned int vector;

    memory_region_init_io(&s->regs_bar, OBJECT(s), &page_writer_regs_ops, s,
                          "page-writer-regs", PAGE_WRITER_REGS_SIZE);
    pci_register_bar(pdev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->regs_bar);
    memory_region_init_io(&s->bar, OBJECT(s), &page_writer_bar_ops, s,
                          TYPE_PAGE_WRITER, PAGE_WRITER_BAR_SIZE);
    pci_register_bar(pdev, 2, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->bar);

    if (pci_bus_is_express(pci_get_bus(pdev))) {
        if (pcie_endpoint_cap_init(pdev, 0) < 0) {
            error_setg(errp, "page-writer has no room for its capabilities");
            return;
        }
        pcie_cap_flr_init(pdev);
    } else if (!page_writer_add_af(s, errp)) {
        return;
    }
    if (msix_init(pdev, PAGE_WRITER_VECTORS, &s->bar, 2, PAGE_WRITER_MSIX_TABLE,
                  &s->bar, 2, PAGE_WRITER_MSIX_PBA, 0, errp) < 0) {
        return;
    }
    for (vector = 0; vector < PAGE_WRITER_VECTORS; vector++) {
        msix_vector_use(pdev, vector);
    }
    s->timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, page_writer_burst, s);
}

static void page_writer_exit(PCIDevice *pdev)
{
    PageWriterState *s = PAGE_WRITER(pdev);

    timer_free(s->timer);
    msix_uninit(pdev, &s->bar, &s->bar);
    if (!s->af_cap) {
        pcie_cap_exit(pdev);
    }
}

static void page_writer_instance_init(Object *obj)
{
    /* The size of the configuration space is chosen before the bus is known. */
    PCI_DEVICE(obj)->cap_present |= QEMU_PCI_CAP_EXPRESS;
}

/* Its host moves its state, by BAR 2; QEMU's own migration would lose it. */
static const VMStateDescription page_writer_vmstate = {
    .name = TYPE_PAGE_WRITER,
    .unmigratable = 1,
};

static void page_writer_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->realize = page_writer_realize;
    k->exit = page_writer_exit;
    k->config_write = page_writer_write_config;
    k->vendor_id = PCI_VENDOR_ID_QEMU;
    k->device_id = PAGE_WRITER_DEVICE_ID;
    k->class_id = PCI_CLASS_OTHERS;
    dc->desc = "Writes memory and can be migrated, for tests of IOMMUs";
    dc->vmsd = &page_writer_vmstate;
    device_class_set_legacy_reset(dc, page_writer_reset);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo page_writer_info = {
    .name = TYPE_PAGE_WRITER,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(PageWriterState),
    .instance_init = page_writer_instance_init,
    .class_init = page_writer_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void page_writer_register_types(void)
{
    type_register_static(&page_writer_info);
}

type_init(page_writer_register_types)
