// SPDX-License-Identifier: GPL-2.0

//! The tree as a whole: levels, sizes, its end.

use super::{
    super::{
        addr::{
            Level,
            Range, //
        },
        node::Slot,
        Config,
        Format,
        Stable, //
    },
    memory::{
        TestMem,
        TestTable, //
    },
    Spec, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// Hardware that the format can't serve is refused, and nothing is left behind.
pub fn config_is_checked<S: Spec>() -> Result {
    let mem = TestMem::new();
    let config = TestTable::<S>::config;

    for levels in [0, S::F::MIN_LEVELS - 1, S::F::MAX_LEVELS + 1, 255] {
        check!(TestTable::<S>::new(&mem, levels).err() == Some(EINVAL));
    }

    let mut bad = config(S::MIN_LEVELS);

    bad.page_sizes = !0x1000;
    check!(TestTable::<S>::with(&mem, bad).err() == Some(EINVAL));

    let mut bad = config(S::MIN_LEVELS);

    bad.input_lg2 = 11;
    check!(TestTable::<S>::with(&mem, bad).err() == Some(EINVAL));
    bad.input_lg2 = 12;
    bad.output_lg2 = 11;
    check!(TestTable::<S>::with(&mem, bad).err() == Some(EINVAL));

    mem.fail_after(0);
    check!(TestTable::<S>::new(&mem, S::MIN_LEVELS).err() == Some(ENOMEM));
    check_eq!(mem.live(), 0);
    Ok(())
}

/// Each number of levels gives the aperture of the specification, or what the hardware takes.
pub fn every_level_count<S: Spec>() -> Result {
    for levels in S::F::MIN_LEVELS..=S::F::MAX_LEVELS {
        let mem = TestMem::new();
        let lg2 = S::lower_lg2(levels);
        let table = TestTable::<S>::new(&mem, levels)?;

        check_eq!(table.table.top().levels, levels);
        check_eq!(table.table.aperture_last(), u64::MAX >> (64 - lg2));
        check_eq!(table.table.top().phys & 0xfff, 0);

        let mut config = TestTable::<S>::config(levels);

        config.input_lg2 = 20;
        let table = TestTable::<S>::with(&mem, config)?;

        check_eq!(table.table.aperture_last(), (1 << 20) - 1);
        check!(table.map(1 << 20, 0, 0x1000).err() == Some(ERANGE));
    }
    Ok(())
}

/// Sizes that the hardware lacks are not used.
pub fn sizes_follow_the_hardware<S: Spec>() -> Result {
    const SIZES: [(u64, u32); 4] = [
        (0x1000, 12),
        (0x20_1000, 21),
        (0x4000_1000, 12),
        (0x4020_1000, 21),
    ];

    for (page_sizes, lg2) in SIZES {
        let mem = TestMem::new();
        let mut config = TestTable::<S>::config(S::MAX_LEVELS);

        config.page_sizes = page_sizes | 1 << 52 | 1 << 11;

        let table = TestTable::<S>::with(&mem, config)?;

        check_eq!(table.table.pgsize_bitmap(), page_sizes);
        table.map(0x4000_0000, 0x8000_0000, 0x20_0000)?;
        check_eq!(table.leaf_lg2(0x4000_0000)?, lg2);
    }
    Ok(())
}

/// A table that lies where no entry can lead to is refused and given back: as the first top, as a
/// new one, and below.
pub fn tables_beyond_the_entries<S: Spec>() -> Result {
    for bits in [1 << S::OUTPUT_LG2, 1 << 63, u64::MAX] {
        let mem = TestMem::new();

        mem.move_away(bits);
        check!(TestTable::<S>::new(&mem, S::MIN_LEVELS).err() == Some(ERANGE));
        check_eq!(mem.live(), 0);
        mem.move_away(0);

        let config = Config {
            max_levels: S::MAX_LEVELS,
            ..TestTable::<S>::config(S::MIN_LEVELS)
        };
        let table = TestTable::<S>::with(&mem, config)?;

        table.map(0, 0, 0x1000)?;

        let (live, top) = (mem.live(), table.table.top());

        for iova in [1 << 21, table.table.aperture_last() & !0xfff] {
            mem.move_away(bits);
            check!(table.map(iova, 0, 0x1000).err() == Some(ERANGE));
            mem.move_away(0);
            check!(mem.live() == live && table.table.top() == top);
            check!(table.translate(iova).is_none());
        }
        table.map(1 << 21, 0, 0x1000)?;
    }
    Ok(())
}

/// The end of a page table frees what is mapped and what is not any more.
pub fn drop_frees_all<S: Spec>() -> Result {
    for levels in S::MIN_LEVELS..=S::MAX_LEVELS {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, levels)?;

        check_eq!(mem.live(), 1);
        for at in 0..5u64 {
            table.map(at << 30, 0x1000, 0x3000)?;
        }
        check_eq!(table.unmap(1 << 30, 0x3000), 0x3000);
        check!(mem.live() > 6);
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// A walk finds no table that nothing claimed leads through, and keeps to the table that it is in.
pub fn walks_keep_to_the_claim<S: Spec>() -> Result {
    const M2: u64 = 1 << 21;
    const G1: u64 = 1 << 30;

    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MAX_LEVELS)?;

    for at in 0..4 {
        table.map(at * M2, 0, 0x1000)?;
    }

    // SAFETY: One thread.
    let claim = unsafe { Stable::new(Range::inclusive(M2 + 0x1000, 3 * M2 - 1)?, &table.table) };
    let tree = table.table.tree();
    let Slot::Table(root) = tree.root(&claim)? else {
        return Err(EINVAL);
    };
    let node = root.descend(Level::new(1), |node, _| node);

    check!(node.level() == Level::new(1));
    for slot in 0..4 {
        let claimed = slot == 1 || slot == 2;

        check!(matches!(node.get(slot), Slot::Table(_)) == claimed);
        check_eq!(
            node.toward(slot as u64 * M2 + 0x2000).slot(),
            if claimed { slot } else { 1 }
        );
    }

    // SAFETY: One thread.
    let claim = unsafe { Stable::new(Range::inclusive(0, 2 * G1 - 1)?, &table.table) };
    let Slot::Table(root) = tree.root(&claim)? else {
        return Err(EINVAL);
    };
    let node = root.descend(Level::new(1), |node, _| node);

    check_eq!(node.toward(M2).slot(), 1);
    check_eq!(node.toward(G1 + M2 + M2).slot(), 0);
    Ok(())
}
