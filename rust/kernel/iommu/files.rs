// SPDX-License-Identifier: GPL-2.0

//! The files in debugfs that show units, domains and devices.
//!
//! A driver has one directory, by the name of its module, with a directory for each object in
//! `units`, `domains` and `devices`. Nothing depends on them: what cannot be made is missing. They
//! are for people and for scripts of the day, and are not an ABI. Without `CONFIG_DEBUG_FS` there
//! is nothing here but empty types.
//!
//! # What a file outlives
//!
//! A file is removed with the value that stands for it, [`Files`] or [`Command`]. Dropping the
//! value waits until the last read or write has returned, so the object may be freed after that,
//! and the module of a driver unloaded. A user who has the file open reads nothing more, and can
//! still close it. To close it, debugfs calls the table of operations, whose module it does not
//! know. So the tables here are those of types that are not generic: they are in the kernel, which
//! is never unloaded.
//!
//! # Locks
//!
//! A caller that drops files waits for readers, so a reader takes no lock under which files are
//! dropped: neither the attach lock nor one of the IOMMU core (see [`ops`](super::ops)).

// Without debugfs only the types are left.
#![cfg_attr(not(CONFIG_DEBUG_FS), allow(dead_code, unused_imports))]

use kernel::{
    debugfs::{
        Dir,
        File,
        Scope,
        ScopedDir, //
    },
    fmt,
    prelude::*,
    str::{
        parse_int::ParseInt,
        BStr,
        CStr,
        CString, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    uaccess::UserSliceReader, //
};

/// A size of `1 << lg2` bytes: the number, and its unit.
pub(super) fn size(lg2: u32) -> (u32, &'static str) {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // CAST: Fits any width.
    let unit = UNITS.get((lg2 / 10) as usize).copied().unwrap_or("");

    (1 << (lg2 % 10), unit)
}

/// Writes page sizes, of which there is a bit for each power of two.
pub fn show_sizes(sizes: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "page sizes")?;
    for lg2 in (0..u64::BITS).filter(|lg2| sizes & 1 << lg2 != 0) {
        let (number, unit) = size(lg2);
        write!(f, " {number} {unit}")?;
    }
    Ok(())
}

/// "yes" or "no".
pub fn yes(is: bool) -> &'static str {
    if is {
        "yes"
    } else {
        "no"
    }
}

/// A file about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// What it can do.
    Caps,
    /// In which state it is.
    State,
    /// What has been counted.
    Counters,
    /// The leaves of its page tables, by size.
    Leaves,
    /// How it translates the address.
    Translation(u64),
}

/// An object that files show.
pub trait Shows: Send + Sync {
    /// Writes what `page` says.
    ///
    /// Context: may sleep. Takes none of the locks under which files are dropped.
    fn show(&self, page: Page, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// What the files of a directory have.
struct Shown {
    object: KBox<dyn Shows>,
    /// The address that `translate` is about: the last that was written to it.
    address: Atomic<u64>,
}

/// Adds the file for a page to the directory of an object.
fn add_page<'data>(dir: &ScopedDir<'data, '_>, shown: &'data Shown, page: Page) {
    macro_rules! file {
        ($name:literal, $page:expr) => {
            dir.read_callback_file(
                $name,
                shown,
                &|shown: &Shown, f: &mut fmt::Formatter<'_>| shown.object.show($page, f),
            )
        };
    }
    match page {
        Page::Caps => file!(c"caps", Page::Caps),
        Page::State => file!(c"state", Page::State),
        Page::Counters => file!(c"counters", Page::Counters),
        Page::Leaves => file!(c"leaves", Page::Leaves),
        Page::Translation(_) => dir.read_write_callback_file(
            c"translate",
            shown,
            &|shown: &Shown, f: &mut fmt::Formatter<'_>| {
                let page = Page::Translation(shown.address.load(Relaxed));
                shown.object.show(page, f)
            },
            &|shown: &Shown, reader: &mut UserSliceReader| {
                shown.address.store(read_number(reader)?, Relaxed);
                Ok(())
            },
        ),
    }
}

/// Reads a number: hexadecimal with `0x` in front.
pub(super) fn read_number(reader: &mut UserSliceReader) -> Result<u64> {
    let mut text = [0u8; 32];
    let length = reader.len();
    let text = text.get_mut(..length).ok_or(EINVAL)?;
    reader.read_slice(text)?;
    u64::from_str(BStr::from_bytes(text.trim_ascii()))
}

/// The directory of an object; dropping it removes the files.
pub(super) struct Files {
    #[cfg(CONFIG_DEBUG_FS)]
    _scope: Option<Pin<KBox<Scope<Shown>>>>,
}

impl Files {
    /// No files.
    pub(super) const fn none() -> Self {
        #[cfg(CONFIG_DEBUG_FS)]
        {
            Self { _scope: None }
        }
        #[cfg(not(CONFIG_DEBUG_FS))]
        Self {}
    }

    /// Makes a directory in `parent`, and in it a file for each of `pages`.
    ///
    /// Context: may sleep.
    // Not compiled into other crates: see "What a file outlives".
    #[inline(never)]
    #[cfg_attr(not(CONFIG_DEBUG_FS), expect(unused_variables))]
    pub(super) fn new(
        parent: &Dir,
        name: fmt::Arguments<'_>,
        object: KBox<dyn Shows>,
        pages: &[Page],
    ) -> Self {
        #[cfg(CONFIG_DEBUG_FS)]
        {
            let Ok(name) = CString::try_from_fmt(name) else {
                return Self::none();
            };
            let shown = Shown {
                object,
                address: Atomic::new(0),
            };
            let scope = parent.scope(shown, &name, |shown, dir| {
                for page in pages {
                    add_page(dir, shown, *page);
                }
            });
            Self {
                _scope: KBox::pin_init(scope, GFP_KERNEL).ok(),
            }
        }
        #[cfg(not(CONFIG_DEBUG_FS))]
        Self::none()
    }
}

/// An action of a driver that a user starts by writing 1 to a file.
pub(super) trait Commanded: Send + Sync {
    /// Runs the action.
    ///
    /// Context: may sleep.
    fn run(&self) -> Result;
}

/// A file that takes a command.
#[pin_data]
pub(super) struct Command {
    #[pin]
    _file: File<KBox<dyn Commanded>>,
}

impl Command {
    /// Makes it in `parent`. What it commands is dropped with it.
    ///
    /// Context: may sleep.
    // Not compiled into other crates: see "What a file outlives".
    #[inline(never)]
    pub(super) fn new(
        parent: &Dir,
        name: &CStr,
        commanded: KBox<dyn Commanded>,
    ) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            try_pin_init!(Self {
                _file <- parent.write_callback_file(name, commanded, &obey),
            }? Error),
            GFP_KERNEL,
        )
    }
}

/// Runs a command if user space writes a 1.
fn obey(commanded: &KBox<dyn Commanded>, reader: &mut UserSliceReader) -> Result {
    let mut first = [0u8; 1];
    reader.read_slice(&mut first)?;
    if first != *b"1" {
        return Err(EINVAL);
    }
    commanded.run()
}

/// The directories of a driver.
#[derive(Clone)]
pub struct Directory {
    pub(super) root: Dir,
    pub(super) units: Dir,
    pub(super) domains: Dir,
    pub(super) devices: Dir,
}

impl Directory {
    /// Makes them, with `name`.
    ///
    /// Context: may sleep.
    pub fn new(name: &CStr) -> Self {
        let root = Dir::new(name);
        Self {
            units: root.subdir(c"units"),
            domains: root.subdir(c"domains"),
            devices: root.subdir(c"devices"),
            root,
        }
    }
}
