// SPDX-License-Identifier: GPL-2.0

//! The calls, to the kernel of this machine, on a file that is no iommufd.

use std::{
    fs::File,
    io, //
};

use iommufd_dirty::{
    can_track,
    Call,
    Error,
    Hwpt, //
};

#[test]
fn another_file_has_no_such_call() -> io::Result<()> {
    let file = File::open("/dev/null")?;
    assert!(matches!(
        can_track(&file, 1),
        Err(Error::NoSuchCall(Call::GetHwInfo))
    ));
    let error = Hwpt::alloc(&file, 1, 2).err().map(|e| e.to_string());
    assert_eq!(
        error.as_deref(),
        Some("IOMMU_HWPT_ALLOC: there is no such call; use /dev/iommu of Linux 6.7 or later")
    );
    Ok(())
}
