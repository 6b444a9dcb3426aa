// SPDX-License-Identifier: GPL-2.0

//! The calls, to a kernel that is made up: `crate::sys::fake`.

use std::{
    error,
    fs::File,
    io, //
};

use super::*;
use crate::{
    error::RangeError,
    sys::fake::{
        kernel,
        DESTROY,
        DEVICE,
        GET_DIRTY_BITMAP,
        GET_HW_INFO,
        HWPT_ALLOC,
        IOAS,
        SET_DIRTY_TRACKING, //
    },
};

type Outcome = Result<(), Box<dyn error::Error>>;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// Any file: the made-up kernel does not look at it.
fn file() -> io::Result<File> {
    File::open("/dev/null")
}

fn table() -> Result<Hwpt<File>, Box<dyn error::Error>> {
    Ok(Hwpt::alloc(file()?, DEVICE, IOAS)?)
}

/// Makes leaves dirty.
fn write(leaves: &[u64]) {
    kernel(|k| k.dirty.extend(leaves));
}

fn pages(bitmap: &Bitmap) -> Vec<usize> {
    bitmap.iter().collect()
}

#[test]
fn a_table_is_allocated_and_destroyed() -> Outcome {
    let file = file()?;
    let (a, b) = (
        Hwpt::alloc(&file, DEVICE, IOAS)?,
        Hwpt::alloc(&file, DEVICE, IOAS)?,
    );
    assert_ne!(a.id(), b.id());
    let left = b.id();
    drop(a);
    assert!(kernel(|k| k.tables.keys().eq([&left])));
    drop(b);
    assert_eq!(
        kernel(|k| (k.tables.len(), k.calls.clone())),
        (0, vec![HWPT_ALLOC, HWPT_ALLOC, DESTROY, DESTROY])
    );
    Ok(())
}

#[test]
fn the_capability_is_asked_for() -> Outcome {
    assert!(can_track(file()?, DEVICE)?);
    kernel(|k| k.tracks = false);
    assert!(!can_track(file()?, DEVICE)?);
    assert!(matches!(
        can_track(file()?, DEVICE + 1),
        Err(Error::NotFound(Call::GetHwInfo))
    ));
    assert_eq!(kernel(|k| k.calls.clone()), [GET_HW_INFO; 3]);
    Ok(())
}

#[test]
fn tracking_goes_on_and_off() -> Outcome {
    let table = table()?;
    for on in [true, false, true] {
        table.set_dirty_tracking(on)?;
        assert_eq!(kernel(|k| k.tables.get(&table.id()).copied()), Some(on));
    }
    Ok(())
}

#[test]
fn a_report_names_the_pages_that_were_written() -> Outcome {
    let table = table()?;
    // More than 4 GiB, not from 0 on, and with pages in the first and last word.
    let mut dirty = Bitmap::new(4 * G, 6 * G, 4 * K)?;
    write(&[
        4 * G - 4 * K,
        4 * G,
        4 * G + 64 * 4 * K,
        10 * G - 4 * K,
        10 * G,
    ]);
    table.read_and_clear(&mut dirty)?;
    assert_eq!(pages(&dirty), [0, 64, 6 * 256 * 1024 - 1]);
    assert_eq!(
        kernel(|k| k.dirty.iter().copied().collect::<Vec<_>>()),
        [4 * G - 4 * K, 10 * G]
    );
    Ok(())
}

#[test]
fn the_unit_of_the_report_is_the_bitmap_s() -> Outcome {
    let table = table()?;
    for (page_size, page) in [(4 * K, 513), (8 * K, 256), (2 * M, 1), (G, 0)] {
        write(&[3 * G + 2 * M + 4 * K]);
        let mut dirty = Bitmap::new(3 * G, 2 * G, page_size)?;
        table.read_and_clear(&mut dirty)?;
        assert_eq!(pages(&dirty), [page], "{page_size:#x}");
    }
    Ok(())
}

#[test]
fn reports_add_up_and_a_look_clears_nothing() -> Outcome {
    let table = table()?;
    let mut dirty = Bitmap::new(0, M, 4 * K)?;
    write(&[8 * K]);
    table.peek(&mut dirty)?;
    table.peek(&mut dirty)?;
    assert!(pages(&dirty) == [2] && kernel(|k| k.dirty.len()) == 1);
    dirty.clear();
    table.read_and_clear(&mut dirty)?;
    assert!(pages(&dirty) == [2] && kernel(|k| k.dirty.is_empty()));
    write(&[16 * K]);
    table.read_and_clear(&mut dirty)?;
    assert_eq!(pages(&dirty), [2, 4]);
    Ok(())
}

#[test]
fn memory_that_is_mapped_twice_has_one_report() -> Outcome {
    let table = table()?;
    let mut dirty = Bitmap::new(0, M, 4 * K)?;
    write(&[4 * K, G + 12 * K]);
    for iova in [0, G] {
        dirty.move_to(iova)?;
        table.read_and_clear(&mut dirty)?;
    }
    assert_eq!(pages(&dirty), [1, 3]);
    Ok(())
}

#[test]
fn a_range_may_end_at_the_last_address() -> Outcome {
    let table = table()?;
    let last = 0u64.wrapping_sub(4 * K);
    let mut dirty = Bitmap::new(last - 4 * K, 8 * K, 4 * K)?;
    write(&[last]);
    table.read_and_clear(&mut dirty)?;
    assert_eq!(pages(&dirty), [1]);
    assert!(dirty.ranges().eq([last..=u64::MAX]));
    Ok(())
}

#[test]
fn what_the_kernel_would_refuse_or_misread_is_not_asked() -> Outcome {
    let table = table()?;
    let asked = kernel(|k| k.calls.len());
    for (iova, length, page_size) in [
        (0, 0, 4096),
        (2048, 4096, 4096),
        (0, 6144, 4096),
        (u64::MAX - 4095, 8192, 4096),
        (0, 4096, 0),
        // The kernel would take this one for a page size of 4096, and set three times the bits.
        (0, 0xc000, 0x3000),
    ] {
        assert!(Bitmap::new(iova, length, page_size).is_err());
    }
    let mut dirty = Bitmap::new(0, 2 * M, 2 * M)?;
    assert!(matches!(
        dirty.move_to(4096),
        Err(RangeError::Unaligned { iova: 4096, .. })
    ));
    table.read_and_clear(&mut dirty)?;
    assert_eq!(
        kernel(|k| k.calls.split_off(asked)),
        [GET_DIRTY_BITMAP],
        "only the last one was asked"
    );
    Ok(())
}

#[test]
fn a_driver_that_reports_too_much_overwrites_nothing() -> Outcome {
    let table = table()?;
    kernel(|k| (k.clips, k.leaf) = (false, G));
    // The last page ends inside a word, a word, a block, and at the end of a block.
    for last in [0, 63, 64, 5000, 32_767, 32_768, 65_535] {
        let length = (last + 1) * 4 * K;
        let mut dirty = Bitmap::new(0, length, 4 * K)?;
        write(&[0]);
        let found = table.read_and_clear(&mut dirty);
        match found {
            Err(Error::Overrun(pages)) => assert_eq!(pages as u64, last + 1),
            // Where the bitmap fills its pages of memory, the kernel itself stops the driver.
            _ => assert!(found.is_ok() && last % 32_768 == 32_767, "{found:?}"),
        }
        assert_eq!(dirty.count() as u64, last + 1);
        // The bits behind the end are gone.
        table.read_and_clear(&mut dirty)?;
        let mut all = Bitmap::new(0, length, 4 * K)?;
        all.set_all();
        assert!(dirty == all, "{last}");
    }
    Ok(())
}

#[test]
fn a_driver_that_begins_late_reaches_the_page_behind() -> Outcome {
    let table = table()?;
    kernel(|k| (k.clips, k.leaf) = (false, 2 * M));
    // The bits of the leaf begin in the middle of a page of memory, and end behind the last one.
    let mut dirty = Bitmap::new(0, 128 * M - 4 * K, 4 * K)?;
    write(&[126 * M]);
    let found = table.read_and_clear(&mut dirty);
    assert!(matches!(found, Err(Error::Overrun(32_767))), "{found:?}");
    assert_eq!(dirty.count(), 511);
    kernel(|k| k.leaf = G);
    let mut dirty = Bitmap::new(0, 128 * M, 4 * K)?;
    write(&[126 * M]);
    let found = table.read_and_clear(&mut dirty);
    assert!(matches!(found, Err(Error::Overrun(32_768))), "{found:?}");
    assert_eq!(dirty.count(), 512);
    Ok(())
}

#[test]
fn errors_say_what_to_change() -> Outcome {
    let table = table()?;
    let mut dirty = Bitmap::new(0, 4 * K, 4 * K)?;
    kernel(|k| k.smallest = 64 * K);
    let cases = [
        (None, "multiples of the IOMMU's smallest page"),
        (Some(libc::EOPNOTSUPP), "IOMMU_HWPT_ALLOC_DIRTY_TRACKING"),
        (Some(libc::ENOTTY), "Linux 6.7 or later"),
        (Some(libc::ENOENT), "before the objects are destroyed"),
        (Some(libc::ENOMEM), "free some"),
        (Some(libc::EIO), "see the kernel's log"),
    ];
    for (errno, advice) in cases {
        kernel(|k| k.refuse = errno.map(|errno| (GET_DIRTY_BITMAP, errno)));
        let error = table.read_and_clear(&mut dirty).err().ok_or("no error")?;
        let said = error.to_string();
        assert!(
            said.starts_with("IOMMU_HWPT_GET_DIRTY_BITMAP: ") && said.contains(advice),
            "{said}"
        );
    }
    kernel(|k| (k.refuse, k.tracks) = (None, false));
    let error = Hwpt::alloc(file()?, DEVICE, IOAS)
        .err()
        .ok_or("allocated")?;
    assert!(matches!(error, Error::NotSupported(Call::HwptAlloc)));
    let said = error.to_string();
    assert!(said.contains("does not track dirty pages"), "{said}");
    assert!(matches!(
        Hwpt::alloc(file()?, DEVICE + 1, IOAS),
        Err(Error::NotFound(Call::HwptAlloc))
    ));
    assert!(matches!(
        Hwpt::alloc(file()?, DEVICE, IOAS + 1),
        Err(Error::Invalid(Call::HwptAlloc))
    ));
    kernel(|k| k.refuse = Some((SET_DIRTY_TRACKING, libc::EBUSY)));
    assert!(matches!(
        table.set_dirty_tracking(true),
        Err(Error::Other(Call::SetDirtyTracking, _))
    ));
    Ok(())
}
