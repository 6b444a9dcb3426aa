// SPDX-License-Identifier: GPL-2.0
/*
 * An emulated IOMMU that does not answer, and the PCI function that makes it so.
 *
 * Registers of iommu-stall in BAR 0, of 8 bytes each. Those from STOP on are of
 * the unit that UNIT selects:
 *
 *   0x00 ID       read-only, IOMMU_STALL_ID
 *   0x08 UNITS    read-only, how many units there are
 *   0x10 UNIT     which of them, in the order of the command line, from 0
 *   0x18 STOP     1: the unit fetches no command; 0: it goes on
 *   0x20 DELAY    the unit stops at the next command, and goes on after so many
 *                 milliseconds of virtual time. Once: reads as 0 from then on
 *   0x28 LOSE     how many completions will get lost: the unit goes on after
 *                 each, but does not store or interrupt. Counts down
 *   0x30 COMMANDS read-only, commands fetched since the machine was started
 *   0x38 HELD     read-only, how often there was a command that was not fetched
 *   0x40 LINE     write-only, not of a unit: the cache line at this address is
 *                 written back, as a processor does it: write-back.h
 *
 * What stops is the queue of commands (invalidations), nothing else: registers read
 * and write as ever, devices' accesses are translated by what is cached and by the
 * tables. A reset of the machine lets all units go on, and forgets what was to come.
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/pci/pci_device.h"
#include "hw/i386/write-back.h"
#include "hw/pci/pcie.h"
#include "qom/object.h"
#include "iommu_stall.h"

#define TYPE_IOMMU_STALL "iommu-stall"
OBJECT_DECLARE_SIMPLE_TYPE(IOMMUStallState, IOMMU_STALL)

/* Of QEMU's vendor ID, next to edu and pasid-dma */
#define IOMMU_STALL_DEVICE_ID   0x11f0
#define IOMMU_STALL_ID          0x4c4c415453554d4dULL   /* "MMUSTALL" */
#define IOMMU_STALL_BAR_SIZE    4096

enum {
    IOMMU_STALL_REG_ID,
    IOMMU_STALL_REG_UNITS,
    IOMMU_STALL_REG_UNIT,
    IOMMU_STALL_REG_STOP,
    IOMMU_STALL_REG_DELAY,
    IOMMU_STALL_REG_LOSE,
    IOMMU_STALL_REG_COMMANDS,
    IOMMU_STALL_REG_HELD,
    IOMMU_STALL_REG_LINE,
};

struct IOMMUStall {
    void (*run)(void *unit);
    void *unit;
    QEMUTimer *timer;
    bool stopped;
    uint64_t delay_ms;
    uint64_t lose;
    uint64_t commands;
    uint64_t held;
};

struct IOMMUStallState {
    PCIDevice parent_obj;

    MemoryRegion bar;
    uint64_t unit;
};

/* Of every unit of the machine */
static GPtrArray *iommu_stalls;

static void iommu_stall_stop(IOMMUStall *stall, bool stop)
{
    stall->stopped = stop;
    if (!stop) {
        timer_del(stall->timer);
        stall->run(stall->unit);
    }
}

static void iommu_stall_timer(void *opaque)
{
    iommu_stall_stop(opaque, false);
}

IOMMUStall *iommu_stall_new(void (*run)(void *unit), void *unit)
{
    IOMMUStall *stall = g_new0(IOMMUStall, 1);

    stall->run = run;
    stall->unit = unit;
    stall->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, iommu_stall_timer, stall);
    if (!iommu_stalls) {
        iommu_stalls = g_ptr_array_new();
    }
    g_ptr_array_add(iommu_stalls, stall);
    return stall;
}

bool iommu_stall_holds(IOMMUStall *stall)
{
    if (!stall->stopped && stall->delay_ms) {
        timer_mod(stall->timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                                stall->delay_ms);
        stall->delay_ms = 0;
        stall->stopped = true;
    }
    if (stall->stopped) {
        stall->held++;
    } else {
        stall->commands++;
    }
    return stall->stopped;
}

bool iommu_stall_loses(IOMMUStall *stall)
{
    if (!stall->lose) {
        return false;
    }
    stall->lose--;
    return true;
}

static IOMMUStall *iommu_stall_selected(IOMMUStallState *s)
{
    if (!iommu_stalls || s->unit >= iommu_stalls->len) {
        return NULL;
    }
    return g_ptr_array_index(iommu_stalls, s->unit);
}

static uint64_t iommu_stall_bar_read(void *opaque, hwaddr addr, unsigned size)
{
    IOMMUStallState *s = opaque;
    const IOMMUStall *stall = iommu_stall_selected(s);

    switch (addr / 8) {
    case IOMMU_STALL_REG_ID:
        return IOMMU_STALL_ID;
    case IOMMU_STALL_REG_UNITS:
        return iommu_stalls ? iommu_stalls->len : 0;
    case IOMMU_STALL_REG_UNIT:
        return s->unit;
    case IOMMU_STALL_REG_STOP:
        return stall ? stall->stopped : 0;
    case IOMMU_STALL_REG_DELAY:
        return stall ? stall->delay_ms : 0;
    case IOMMU_STALL_REG_LOSE:
        return stall ? stall->lose : 0;
    case IOMMU_STALL_REG_COMMANDS:
        return stall ? stall->commands : 0;
    case IOMMU_STALL_REG_HELD:
        return stall ? stall->held : 0;
    }
    return 0;
}

static void iommu_stall_bar_write(void *opaque, hwaddr addr, uint64_t val,
                                  unsigned size)
{
    IOMMUStallState *s = opaque;
    IOMMUStall *stall = iommu_stall_selected(s);

    if (addr / 8 == IOMMU_STALL_REG_UNIT) {
        s->unit = val;
        return;
    }
    if (addr / 8 == IOMMU_STALL_REG_LINE) {
        write_back_line(val);
        return;
    }
    if (!stall) {
        return;
    }
    switch (addr / 8) {
    case IOMMU_STALL_REG_STOP:
        iommu_stall_stop(stall, val & 1);
        break;
    case IOMMU_STALL_REG_DELAY:
        /* So that it does not overflow; ten days are enough. */
        stall->delay_ms = MIN(val, 1000000000);
        break;
    case IOMMU_STALL_REG_LOSE:
        stall->lose = val;
        break;
    }
}

static const MemoryRegionOps iommu_stall_bar_ops = {
    .read = iommu_stall_bar_read,
    .write = iommu_stall_bar_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 8, .max_access_size = 8 },
    .impl = { .min_access_size = 8, .max_access_size = 8 },
};

static void iommu_stall_reset(DeviceState *dev)
{
    unsigned int i;

    IOMMU_STALL(dev)->unit = 0;
    for (i = 0; iommu_stalls && i < iommu_stalls->len; i++) {
        IOMMUStall *stall = g_ptr_array_index(iommu_stalls, i);

        stall->delay_ms = 0;
        stall->lose = 0;
        if (stall->stopped) {
            iommu_stall_stop(stall, false);
        }
    }
}

static void iommu_stall_realize(PCIDevice *pdev, Error **errp)
{
    IOMMUStallState *s = IOMMU_STALL(pdev);

    if (pcie_endpoint_cap_init(pdev, 0) < 0) {
        error_setg(errp, "iommu-stall needs a PCI Express bus");
        return;
    }
    memory_region_init_io(&s->bar, OBJECT(s), &iommu_stall_bar_ops, s,
                          TYPE_IOMMU_STALL, IOMMU_STALL_BAR_SIZE);
    pci_register_bar(pdev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->bar);
}

static void iommu_stall_exit(PCIDevice *pdev)
{
    pcie_cap_exit(pdev);
}

static void iommu_stall_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->realize = iommu_stall_realize;
    k->exit = iommu_stall_exit;
    k->vendor_id = PCI_VENDOR_ID_QEMU;
    k->device_id = IOMMU_STALL_DEVICE_ID;
    k->class_id = PCI_CLASS_OTHERS;
    dc->desc = "Stops IOMMUs, for tests of their drivers";
    device_class_set_legacy_reset(dc, iommu_stall_reset);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo iommu_stall_info = {
    .name = TYPE_IOMMU_STALL,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(IOMMUStallState),
    .class_init = iommu_stall_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void iommu_stall_register_types(void)
{
    type_register_static(&iommu_stall_info);
}

type_init(iommu_stall_register_types)
